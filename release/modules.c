/* Linked into the released program, which has its C library in it.
 *
 * A static glibc still loads modules of the host for names of hosts and users where /etc/nsswitch.conf
 * names them, and they are made for the host's glibc, not for this one. So the program looks names up by
 * what it has in itself: files, and DNS for hosts. */
#include <nss.h>

__attribute__((constructor)) static void only_what_is_linked(void) {
  __nss_configure_lookup("hosts", "files dns");
  __nss_configure_lookup("passwd", "files");
  __nss_configure_lookup("group", "files");
  __nss_configure_lookup("services", "files");
}
