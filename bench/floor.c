/*
 * The least that the kernel must be asked for to run a command in the container that `runc spec` describes: control
 * group folders, one clone3, the same mounts, pivot_root, exec, the wait, and the folders' removal. Nothing is checked
 * that an attacker could exchange and no limit is set: this is a bound to compare with, not a way to run anything.
 *
 *   floor ROOTFS COMMAND GROUP...      (each GROUP is a control group to make, join and remove, as
 *                                       /sys/fs/cgroup/CONTROLLER/NAME; `unified` is v2's, `systemd` a named one)
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(call) \
    do { \
        if ((call) < 0) \
            err(1, "%s", #call); \
    } while (0)

static const char *const masked_files[] = {"proc/kcore", "proc/keys", "proc/latency_stats", "proc/timer_list",
                                           "proc/timer_stats", "proc/sched_debug"};
static const char *const masked_folders[] = {"proc/acpi", "proc/asound", "proc/scsi", "sys/firmware"};
static const char *const read_only[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"};
static const struct {
    const char *name;
    int major, minor;
} devices[] = {{"dev/null", 1, 3},   {"dev/zero", 1, 5},    {"dev/full", 1, 7},
               {"dev/random", 1, 8}, {"dev/urandom", 1, 9}, {"dev/tty", 5, 0}};
static const char *const links[][2] = {{"/proc/self/fd", "dev/fd"},       {"/proc/self/fd/0", "dev/stdin"},
                                       {"/proc/self/fd/1", "dev/stdout"}, {"/proc/self/fd/2", "dev/stderr"},
                                       {"/proc/kcore", "dev/core"},       {"pts/ptmx", "dev/ptmx"}};
#define COUNT(list) (sizeof(list) / sizeof(list[0]))

/* Hides what exists; what does not needs no hiding. */
static void cover(const char *source, const char *target, const char *kind, unsigned long flags, const char *options)
{
    if (mount(source, target, kind, flags, options) < 0 && access(target, F_OK) == 0)
        err(1, "cover %s", target);
}

static void tree(void)
{
    const unsigned long quiet = MS_NOSUID | MS_NOEXEC | MS_NODEV;
    CHECK(mount("proc", "proc", "proc", 0, NULL));
    CHECK(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"));
    umask(0);
    for (size_t i = 0; i < COUNT(devices); i++)
        CHECK(mknod(devices[i].name, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)));
    for (size_t i = 0; i < COUNT(links); i++)
        CHECK(symlink(links[i][0], links[i][1]));
    CHECK(mkdir("dev/pts", 0755));
    CHECK(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"));
    CHECK(mkdir("dev/shm", 0755));
    CHECK(mount("shm", "dev/shm", "tmpfs", quiet, "mode=1777,size=65536k"));
    CHECK(mkdir("dev/mqueue", 0755));
    CHECK(mount("mqueue", "dev/mqueue", "mqueue", quiet, NULL));
    CHECK(mount("sysfs", "sys", "sysfs", quiet | MS_RDONLY, NULL));
}

static void groups_view(char *const *groups, int count)
{
    char target[256];
    const unsigned long quiet = MS_NOSUID | MS_NOEXEC | MS_NODEV | MS_RELATIME;
    CHECK(mount("cgroup", "sys/fs/cgroup", "tmpfs", quiet, "mode=755"));
    for (int i = 0; i < count; i++) {
        /* .../CONTROLLER/NAME */
        char controller[64];
        const char *end = strrchr(groups[i], '/'), *begin = end;
        while (begin > groups[i] && begin[-1] != '/')
            begin--;
        snprintf(controller, sizeof controller, "%.*s", (int)(end - begin), begin);
        if (strcmp(controller, "unified") == 0)
            continue;
        snprintf(target, sizeof target, "sys/fs/cgroup/%s", controller);
        CHECK(mkdir(target, 0755));
        const char *option = strcmp(controller, "systemd") == 0 ? "none,name=systemd" : controller;
        CHECK(mount("cgroup", target, "cgroup", quiet | MS_RDONLY, option));
    }
    CHECK(mount(NULL, "sys/fs/cgroup", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | quiet, NULL));
}

static void hide(void)
{
    for (size_t i = 0; i < COUNT(read_only); i++) {
        if (mount(read_only[i], read_only[i], NULL, MS_BIND | MS_REC, NULL) == 0)
            CHECK(mount(NULL, read_only[i], NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
    }
    for (size_t i = 0; i < COUNT(masked_files); i++)
        cover("dev/null", masked_files[i], NULL, MS_BIND, NULL);
    for (size_t i = 0; i < COUNT(masked_folders); i++)
        cover("tmpfs", masked_folders[i], "tmpfs", MS_RDONLY, "size=0k,nr_inodes=1");
}

/* v1 gives a new cpuset neither processors nor memory nodes, and then nothing can join it. */
static void inherit(const char *group, const char *name)
{
    char path[4096], value[4096];
    snprintf(path, sizeof path, "%s/../%s", group, name);
    const int from = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(from);
    const ssize_t size = read(from, value, sizeof value);
    CHECK(size);
    close(from);
    snprintf(path, sizeof path, "%s/%s", group, name);
    const int to = open(path, O_WRONLY | O_CLOEXEC);
    CHECK(to);
    CHECK(write(to, value, size));
    close(to);
}

/* By the process itself and by `tasks`: the way that takes no lock. v2 has no such file. */
static void join(const char *group)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", group, strstr(group, "/unified/") ? "cgroup.procs" : "tasks");
    const int file = open(path, O_WRONLY | O_CLOEXEC);
    CHECK(file);
    CHECK(write(file, "0", 1));
    close(file);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        errx(2, "usage: floor ROOTFS COMMAND GROUP...");
    char *const *groups = argv + 3;
    const int count = argc - 3;
    for (int i = 0; i < count; i++) {
        CHECK(mkdir(groups[i], 0755));
        if (strstr(groups[i], "/cpuset/")) {
            inherit(groups[i], "cpuset.cpus");
            inherit(groups[i], "cpuset.mems");
        }
    }

    struct clone_args clone = {.exit_signal = SIGCHLD};
    clone.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET;
    const long pid = syscall(SYS_clone3, &clone, sizeof clone);
    CHECK(pid);
    if (pid == 0) {
        char *const command[] = {argv[2], NULL}, *const environment[] = {NULL};
        for (int i = 0; i < count; i++)
            join(groups[i]);
        CHECK(unshare(CLONE_NEWCGROUP));
        CHECK(mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL));
        CHECK(mount(argv[1], argv[1], NULL, MS_BIND | MS_REC, NULL));
        CHECK(chdir(argv[1]));
        tree();
        groups_view(groups, count);
        hide();
        CHECK(syscall(SYS_pivot_root, ".", "."));
        CHECK(umount2(".", MNT_DETACH));
        CHECK(chdir("/"));
        CHECK(sethostname("floor", 5));
        execve(command[0], command, environment);
        err(1, "execve");
    }
    int status;
    CHECK(waitpid(pid, &status, 0));
    for (int i = 0; i < count; i++)
        CHECK(rmdir(groups[i]));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
