/* Loaded before libc by the test failed_sync: fdatasync fails once, as it does when a disk cannot write.
 *
 * It fails for the file named FAILED_SYNC_NAME as soon as there is a file at the path FAILED_SYNC_TRIGGER,
 * which it removes. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_for(int descriptor, const char *name) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    const char *last = strrchr(path, '/');
    return last && strcmp(last + 1, name) == 0;
}

int fdatasync(int descriptor) {
    const char *name = getenv("FAILED_SYNC_NAME"), *trigger = getenv("FAILED_SYNC_TRIGGER");
    if (name && trigger && is_for(descriptor, name) && unlink(trigger) == 0) {
        errno = EIO;
        return -1;
    }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return real(descriptor);
}
