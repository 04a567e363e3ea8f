/* Linked into the released program, which contains its C library.
 *
 * To look up hosts and users, even a static glibc loads the modules that the host's /etc/nsswitch.conf
 * names. Those are built for the host's glibc and not for this one. Therefore the program uses only the
 * lookups that are linked into it: files, and DNS for hosts. */
#include <nss.h>

__attribute__((constructor)) static void only_what_is_linked(void) {
  __nss_configure_lookup("hosts", "files dns");
  __nss_configure_lookup("passwd", "files");
  __nss_configure_lookup("group", "files");
  __nss_configure_lookup("services", "files");
}
