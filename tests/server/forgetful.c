/* A disk that forgets what was not flushed: LD_PRELOAD for a server, whose folder KBDFL_FOLDER is mirrored in
 * KBDFL_PLATTER. A file's bytes reach the platter when it is flushed, names when their folder is: what a power cut would
 * leave is what the platter holds. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

/* The path of an open file inside the folder, relative to it; NULL for any other file. */
static const char *inside(int fd, char *path, size_t size) {
    char link[64];
    const char *folder = getenv("KBDFL_FOLDER");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t length = readlink(link, path, size - 1);
    if (!folder || length < 0) return NULL;
    path[length] = 0;
    const size_t prefix = strlen(folder);
    if (strncmp(path, folder, prefix) || (path[prefix] && path[prefix] != '/')) return NULL;
    return path[prefix] ? path + prefix + 1 : path + prefix;
}

/* Where the platter has the bytes of a file: by its inode, for a name may change before its folder is flushed. */
static void bytes_of(const struct stat *what, char *path, size_t size) {
    snprintf(path, size, "%s/bytes/%lu", getenv("KBDFL_PLATTER"), (unsigned long)what->st_ino);
}

static void copy_bytes(int fd) {
    char target[4096], part[4200], buffer[1 << 16];
    struct stat what;
    if (fstat(fd, &what)) return;
    bytes_of(&what, target, sizeof target);
    snprintf(part, sizeof part, "%s.part", target);
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    /* To close a second descriptor would drop SQLite's locks; it reads and writes by one. */
    const int unread = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY, in = unread ? open(self, O_RDONLY) : fd;
    const int out = open(part, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    off_t at = 0;
    ssize_t count;
    if (in < 0 || out < 0) abort();
    while ((count = pread(in, buffer, sizeof buffer, at)) > 0) {
        if (write(out, buffer, (size_t)count) != count) abort();
        at += count;
    }
    if (unread) close(in);
    close(out);
    rename(part, target);
}

/* The folder's names as they are now: a line each, of an inode and a name. */
static void copy_names(const char *folder, const char *relative) {
    char list[4200], part[4300], path[4400], name[512];
    snprintf(name, sizeof name, "+%s", relative);
    for (char *c = name; *c; c++)
        if (*c == '/') *c = '+';
    snprintf(list, sizeof list, "%s/names/%s", getenv("KBDFL_PLATTER"), name);
    snprintf(part, sizeof part, "%s.part", list);
    FILE *out = fopen(part, "w");
    DIR *open_folder = opendir(folder);
    struct dirent *entry;
    while (out && open_folder && (entry = readdir(open_folder))) {
        struct stat what;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (!stat(path, &what) && S_ISREG(what.st_mode))
            fprintf(out, "%lu %s\n", (unsigned long)what.st_ino, entry->d_name);
    }
    if (open_folder) closedir(open_folder);
    if (out) fclose(out);
    rename(part, list);
}

static void flushed(int fd) {
    char path[4096];
    struct stat what;
    const char *relative = inside(fd, path, sizeof path);
    if (!relative || fstat(fd, &what)) return;
    pthread_mutex_lock(&one_at_a_time);
    if (S_ISDIR(what.st_mode))
        copy_names(path, relative);
    else
        copy_bytes(fd);
    pthread_mutex_unlock(&one_at_a_time);
}

int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    flushed(fd);
    return real(fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    flushed(fd);
    return real(fd);
}
