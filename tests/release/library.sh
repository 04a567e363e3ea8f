# What ./debian and ./systemd have in common. Sourced by them.
# shellcheck shell=bash disable=SC2154

# Packs a program of an earlier version as the package NEW has its own: package_of PROGRAM NEW PACKAGE
package_of() {
  local program=$1 new=$2 package=$3 folder version
  folder=$(mktemp -d "$work/package.XXXX")
  dpkg-deb --raw-extract "$new" "$folder/files"
  cp "$program" "$folder/files/usr/bin/widgets"
  version=$("$program" --version | cut -d' ' -f2)
  # Whatever its version: what is installed first is older.
  if dpkg --compare-versions "$version" ge "$(dpkg-deb --field "$new" Version)"; then
    version="$version~earlier"
  fi
  sed -i "s/^Version: .*/Version: $version/" "$folder/files/DEBIAN/control"
  (cd "$folder/files" && find usr -type f -exec md5sum {} + >DEBIAN/md5sums)
  dpkg-deb -Znone --root-owner-group --build "$folder/files" "$package" >/dev/null
  rm -r "$folder"
}

# The README's calls of curl, one a line behind the status that the text before gives.
readme_calls() {
  python3 - "$root/README.md" <<'PYTHON'
import re, sys
text = open(sys.argv[1]).read()
for said, block in re.findall(r"((?:^(?! {4}).*\n)+)((?:^ {4}.*\n)+)", text, re.MULTILINE):
    call = re.sub(r"\\\n\s*", "", block).strip()
    if call.startswith("curl "):
        for status in re.findall(r"\((\d{3})\)", said):
            print(status, call)
PYTHON
}
