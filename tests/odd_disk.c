/* Preloaded into a process: a disk that lacks what others have, and a user whom nobody has entered.

   ODD_LOCKS, ODD_FOLDER_SYNC   the error of every lock, of making a folder's names durable
   ODD_ROOM                     "unknown": the disk tells no sizes; "none": it tells that it is full; else an error
   ODD_STALE                    a folder; while a file of its name and ".stale" lies beside it, all below it is stale
   ODD_USER                     the user is not known */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

static int number(const char *name) {
    const char *text = getenv(name);
    return text ? atoi(text) : 0;
}

static int fails(const char *name) {
    int error = number(name);
    if (error) errno = error;
    return error;
}

static int stale(const char *path) {
    const char *folder = getenv("ODD_STALE");
    char sign[4096];
    if (!folder || !path || strncmp(path, folder, strlen(folder))) return 0;
    const char after = path[strlen(folder)];
    if (after && after != '/') return 0;
    snprintf(sign, sizeof sign, "%s.stale", folder);
    if (REAL(access)(sign, F_OK)) return 0;
    errno = ESTALE;
    return 1;
}

int flock(int descriptor, int how) {
    return fails("ODD_LOCKS") ? -1 : REAL(flock)(descriptor, how);
}

int fsync(int descriptor) {
    struct stat found;
    if (number("ODD_FOLDER_SYNC") && !fstat(descriptor, &found) && S_ISDIR(found.st_mode))
        return fails("ODD_FOLDER_SYNC"), -1;
    return REAL(fsync)(descriptor);
}

int statvfs64(const char *path, struct statvfs64 *found) {
    const char *room = getenv("ODD_ROOM");
    int result = REAL(statvfs64)(path, found);
    if (result || !room) return result;
    if (fails("ODD_ROOM")) return -1;
    found->f_bfree = found->f_bavail = 0;
    if (!strcmp(room, "unknown")) found->f_blocks = 0;
    return 0;
}

int getpwuid_r(uid_t user, struct passwd *entry, char *buffer, size_t size, struct passwd **result) {
    if (!getenv("ODD_USER")) return REAL(getpwuid_r)(user, entry, buffer, size, result);
    *result = NULL;
    return 0;
}

int open64(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return stale(path) ? -1 : REAL(open64)(path, flags, mode);
}

int stat64(const char *path, struct stat64 *found) {
    return stale(path) ? -1 : REAL(stat64)(path, found);
}

int lstat64(const char *path, struct stat64 *found) {
    return stale(path) ? -1 : REAL(lstat64)(path, found);
}

int fstatat64(int folder, const char *path, struct stat64 *found, int flags) {
    return stale(path) ? -1 : REAL(fstatat64)(folder, path, found, flags);
}

DIR *opendir(const char *path) {
    return stale(path) ? NULL : REAL(opendir)(path);
}

int mkdir(const char *path, mode_t mode) {
    return stale(path) ? -1 : REAL(mkdir)(path, mode);
}

int access(const char *path, int how) {
    return stale(path) ? -1 : REAL(access)(path, how);
}
