/*
 * Records what a process does to the files of one folder, for replaying power cuts.
 *
 * Loaded with LD_PRELOAD. POWERCUT_ROOT names the folder, POWERCUT_TRACE the file to append to. Every successful
 * call becomes one record: a line "op inode a b path-length data-length\n", the path (relative to the root), the
 * data. Files are told apart by inode, because a file can be renamed while it is open. A record is written under
 * the same lock as the call it describes, so the trace has the order in which things happened. A sync says how many
 * records came before it began: what was written meanwhile is not covered.
 *
 *   C inode            created        W inode offset     data written      A              data told on stdout
 *   D inode            folder made    Z inode length     truncated         M              renamed: path \0 new path
 *   S inode covered    synced         R inode off len    range synced      U              removed
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define MAX_FDS 4096
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int trace_fd = -1;
static char root[PATH_MAX];
static size_t root_len;
static uint64_t records;        /* written so far */
static ino_t watched[MAX_FDS];  /* the inode behind each descriptor of the folder, or 0 */

static void setup(void) {
  const char *folder = getenv("POWERCUT_ROOT"), *trace = getenv("POWERCUT_TRACE");
  if (!folder || !trace || strlen(folder) >= sizeof root) return;
  strcpy(root, folder);
  root_len = strlen(root);
  trace_fd = REAL(open64)(trace, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600);
}

static int active(void) {
  pthread_once(&once, setup);
  return trace_fd >= 0;
}

/* The path below the root, or NULL if it is elsewhere. Paths in the folder are always given in full. */
static const char *inside(const char *path) {
  if (!active() || strncmp(path, root, root_len) != 0) return NULL;
  if (path[root_len] == '\0') return "";
  return path[root_len] == '/' ? path + root_len + 1 : NULL;
}

static void put(const void *bytes, size_t length) {
  const char *at = bytes;
  while (length > 0) {
    ssize_t n = REAL(write)(trace_fd, at, length);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) abort(); /* a trace with a hole proves nothing */
    at += n;
    length -= (size_t)n;
  }
}

/* Call with the lock held. */
static void record(char op, ino_t inode, uint64_t a, uint64_t b, const char *path, size_t path_len, const void *data,
                   size_t data_len) {
  int saved = errno;
  char head[128];
  int n = snprintf(head, sizeof head, "%c %llu %llu %llu %zu %zu\n", op, (unsigned long long)inode,
                   (unsigned long long)a, (unsigned long long)b, path_len, data_len);
  put(head, (size_t)n);
  put(path, path_len);
  put(data, data_len);
  records++;
  errno = saved;
}

static ino_t inode_of(int fd) {
  return fd >= 0 && fd < MAX_FDS ? watched[fd] : 0;
}

static void begin(void) { pthread_mutex_lock(&lock); }
static void end(void) { pthread_mutex_unlock(&lock); }

/* ---- names ---- */

static int opened(int fd, const char *path, int flags, int existed) {
  const char *name = path ? inside(path) : NULL;
  if (fd < 0 || fd >= MAX_FDS) return fd;
  watched[fd] = 0;
  if (!name) return fd;
  struct stat st;
  if (fstat(fd, &st) != 0) abort();
  watched[fd] = st.st_ino;
  if (!existed) record('C', st.st_ino, 0, 0, name, strlen(name), NULL, 0);
  if (existed && (flags & O_TRUNC)) record('Z', st.st_ino, 0, 0, NULL, 0, NULL, 0);
  return fd;
}

#define OPEN_BODY(real_call)                                                        \
  mode_t mode = 0;                                                                  \
  if (flags & O_CREAT) {                                                            \
    va_list rest;                                                                   \
    va_start(rest, flags);                                                          \
    mode = va_arg(rest, mode_t);                                                    \
    va_end(rest);                                                                   \
  }                                                                                 \
  int known = active();                                                             \
  if (!known) return real_call;                                                     \
  begin();                                                                          \
  int existed = !(flags & O_CREAT) || access(path, F_OK) == 0;                      \
  int fd = real_call;                                                               \
  opened(fd, path, flags, existed);                                                 \
  end();                                                                            \
  return fd;

int open(const char *path, int flags, ...) { OPEN_BODY(REAL(open)(path, flags, mode)) }
int open64(const char *path, int flags, ...) { OPEN_BODY(REAL(open64)(path, flags, mode)) }

/* The full path of a name beside an open folder; the name itself if it is full already. */
static const char *full(int dir, const char *name, char *space) {
  if (name[0] == '/' || dir == AT_FDCWD) return name;
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
  ssize_t n = readlink(link, space, PATH_MAX);
  if (n <= 0 || (size_t)n + strlen(name) + 2 > PATH_MAX) return name;
  space[n] = '/';
  strcpy(space + n + 1, name);
  return space;
}

#define OPENAT_BODY(symbol)                       \
  char space[PATH_MAX];                           \
  const char *name = path;                        \
  path = full(dir, name, space);                  \
  OPEN_BODY(REAL(symbol)(dir, name, flags, mode))

int openat(int dir, const char *path, int flags, ...) { OPENAT_BODY(openat) }
int openat64(int dir, const char *path, int flags, ...) { OPENAT_BODY(openat64) }

int close(int fd) {
  begin();
  if (fd >= 0 && fd < MAX_FDS) watched[fd] = 0;
  int result = REAL(close)(fd);
  end();
  return result;
}

int mkdir(const char *path, mode_t mode) {
  begin();
  int result = REAL(mkdir)(path, mode);
  const char *name = inside(path);
  struct stat st;
  if (result == 0 && name && stat(path, &st) == 0) record('D', st.st_ino, 0, 0, name, strlen(name), NULL, 0);
  end();
  return result;
}

int rename(const char *from, const char *to) {
  begin();
  int result = REAL(rename)(from, to);
  const char *a = inside(from), *b = inside(to);
  if (result == 0 && a && b) {
    char both[2 * PATH_MAX];
    size_t a_len = strlen(a) + 1, b_len = strlen(b);
    memcpy(both, a, a_len);
    memcpy(both + a_len, b, b_len);
    record('M', 0, 0, 0, both, a_len + b_len, NULL, 0);
  }
  end();
  return result;
}

static int removed(int result, const char *path) {
  const char *name = inside(path);
  if (result == 0 && name) record('U', 0, 0, 0, name, strlen(name), NULL, 0);
  return result;
}

#define LOCKED_REMOVE(call, path) \
  begin();                        \
  int result = removed(call, path); \
  end();                          \
  return result;

int unlink(const char *path) { LOCKED_REMOVE(REAL(unlink)(path), path) }
int rmdir(const char *path) { LOCKED_REMOVE(REAL(rmdir)(path), path) }
int unlinkat(int dir, const char *path, int flags) {
  char space[PATH_MAX];
  const char *whole = full(dir, path, space);
  LOCKED_REMOVE(REAL(unlinkat)(dir, path, flags), whole)
}

/* ---- content ---- */

static ssize_t written(ssize_t n, int fd, const void *data, off64_t offset) {
  ino_t inode = inode_of(fd);
  if (n > 0 && inode) record('W', inode, (uint64_t)offset, 0, NULL, 0, data, (size_t)n);
  if (n > 0 && fd == STDOUT_FILENO && active()) record('A', 0, 0, 0, NULL, 0, data, (size_t)n);
  return n;
}

ssize_t write(int fd, const void *data, size_t length) {
  begin();
  off64_t at = inode_of(fd) ? lseek64(fd, 0, SEEK_CUR) : 0;
  ssize_t n = written(REAL(write)(fd, data, length), fd, data, at);
  end();
  return n;
}

#define PWRITE_BODY(symbol)                                                    \
  begin();                                                                     \
  ssize_t n = written(REAL(symbol)(fd, data, length, offset), fd, data, offset); \
  end();                                                                       \
  return n;

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { PWRITE_BODY(pwrite) }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) { PWRITE_BODY(pwrite64) }

#define TRUNCATE_BODY(symbol)                                                                     \
  begin();                                                                                        \
  int result = REAL(symbol)(fd, length);                                                          \
  ino_t inode = inode_of(fd);                                                                     \
  if (result == 0 && inode) record('Z', inode, (uint64_t)length, 0, NULL, 0, NULL, 0);            \
  end();                                                                                          \
  return result;

int ftruncate(int fd, off_t length) { TRUNCATE_BODY(ftruncate) }
int ftruncate64(int fd, off64_t length) { TRUNCATE_BODY(ftruncate64) }

/* Syncs take long and run unlocked, so that others write meanwhile, as they would without the recorder. */
#define SYNC_BODY(call, op, a, b)                                      \
  begin();                                                             \
  ino_t inode = inode_of(fd);                                          \
  uint64_t covered = records;                                          \
  end();                                                               \
  (void)covered;                                                       \
  int result = call;                                                   \
  if (result == 0 && inode) {                                          \
    begin();                                                           \
    record(op, inode, (uint64_t)(a), (uint64_t)(b), NULL, 0, NULL, 0); \
    end();                                                             \
  }                                                                    \
  return result;

int fsync(int fd) { SYNC_BODY(REAL(fsync)(fd), 'S', covered, 0) }
int fdatasync(int fd) { SYNC_BODY(REAL(fdatasync)(fd), 'S', covered, 0) }
int sync_file_range(int fd, off64_t offset, off64_t length, unsigned flags) {
  SYNC_BODY(REAL(sync_file_range)(fd, offset, length, flags), 'R', offset, length)
}
