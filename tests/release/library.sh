# Functions shared by ./stranger, ./debian and ./systemd, which source this file.
# shellcheck shell=bash disable=SC2154

# Packs a program of an earlier version in the same way as the package NEW: package_of PROGRAM NEW PACKAGE
package_of() {
  local program=$1 new=$2 package=$3 folder version
  folder=$(mktemp -d "$work/package.XXXX")
  dpkg-deb --raw-extract "$new" "$folder/files"
  cp "$program" "$folder/files/usr/bin/widgets"
  version=$("$program" --version | cut -d' ' -f2)
  # The package that is installed first must be the older one, whatever the program's version is.
  if dpkg --compare-versions "$version" ge "$(dpkg-deb --field "$new" Version)"; then
    version="$version~earlier"
  fi
  sed -i "s/^Version: .*/Version: $version/" "$folder/files/DEBIAN/control"
  (cd "$folder/files" && find usr -type f -exec md5sum {} + >DEBIAN/md5sums)
  dpkg-deb -Znone --root-owner-group --build "$folder/files" "$package" >/dev/null
  rm -r "$folder"
}

# Unpacks a bare Debian with a folder /try for a test, and first builds that Debian if it does not exist: bare_debian FOLDER
bare_debian() {
  local folder=$1 kept=$root/target/debian/bookworm.tar
  if [[ ! -e $kept ]]; then
    mkdir -p "$(dirname "$kept")"
    # shellcheck disable=SC2016
    mmdebstrap --quiet --variant=minbase --dpkgopt=force-unsafe-io --include=ca-certificates,curl \
      --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*' bookworm "${kept%.tar}.new.tar"
    mv "${kept%.tar}.new.tar" "$kept"
  fi
  mkdir "$folder"
  tar --extract --file "$kept" --directory "$folder" --exclude './dev/*'
  mkdir "$folder/try"
}

# Runs a command in the bare Debian, in separate namespaces for processes and for a network that has only a loopback
# interface: inside_bare FOLDER COMMAND ...
inside_bare() {
  unshare --net --mount --pid --fork bash -euc '
    ip link set lo up
    mount --make-rprivate /
    mount -t proc proc "$1/proc"
    mount -t tmpfs tmpfs "$1/dev"
    for device in null zero random urandom; do touch "$1/dev/$device"; mount --bind "/dev/$device" "$1/dev/$device"; done
    ln -s /proc/self/fd "$1/dev/fd"
    exec chroot "$1" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 "${@:2}"
  ' bash "$@"
}

# Prints the README's calls of curl, one per line, each after the status that the text before it states.
readme_calls() {
  python3 - "$root/README.md" <<'PYTHON'
import re, sys
text = open(sys.argv[1]).read()
calls = []
for said, block in re.findall(r"((?:^(?! {4}).*\n)+)((?:^ {4}.*\n)+)", text, re.MULTILINE):
    call = re.sub(r"\\\n\s*", "", block).strip()
    if call.startswith("curl "):
        calls += [f"{status} {call}" for status in re.findall(r"\((\d{3})\)", said)]
if not any(call.startswith("204 ") and "associate_widgets" in call for call in calls):
    sys.exit("the README's calls are not found")
print("\n".join(calls))
PYTHON
}
