/* Tests load this before libc. It replaces fdatasync with one that fails, or takes its time, on demand.
 *
 * Once a file exists at the path FAILED_SYNC_TRIGGER, the next sync of the file named FAILED_SYNC_NAME fails and
 * removes that file.
 *
 * Every sync waits while a file exists at the path HELD_SYNC. The file at HELD_SYNC_REACHED shows that one is
 * waiting. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
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

static void hold(void) {
    const char *held = getenv("HELD_SYNC"), *reached = getenv("HELD_SYNC_REACHED");
    if (!held || !reached || access(held, F_OK) != 0)
        return;
    int file = open(reached, O_CREAT | O_WRONLY, 0600);
    if (file >= 0)
        close(file);
    while (access(held, F_OK) == 0)
        usleep(1000);
}

int fdatasync(int descriptor) {
    hold();
    const char *name = getenv("FAILED_SYNC_NAME"), *trigger = getenv("FAILED_SYNC_TRIGGER");
    if (name && trigger && is_for(descriptor, name) && unlink(trigger) == 0) {
        errno = EIO;
        return -1;
    }
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return real(descriptor);
}
