"""What the benches share: alternating runs, medians, a Docker daemon and a base image of the bench's own."""

import contextlib
import glob
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
HULL = os.environ.get("HULL_BIN", os.path.join(HERE, "../bin/hull"))
# The newer clients that may come before it have no BuildKit of their own.
DOCKER = "/usr/bin/docker"


def timed(command, **keywords):
    """Runs a command; gives its wall time in milliseconds. What it says is shown only if it fails."""
    start = time.monotonic()
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, **keywords
    )
    took = (time.monotonic() - start) * 1000
    if done.returncode != 0:
        sys.exit(f"{command}: exit status {done.returncode}\n{done.stdout.decode(errors='replace')}")
    return took


def spawned(command):
    """As `timed`, for commands of a few milliseconds: only the spawn and the wait lie between the two looks at the clock."""
    null = os.open(os.devnull, os.O_RDWR)
    streams = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1)]
    start = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ, file_actions=streams)
    _, status = os.waitpid(pid, 0)
    took = (time.monotonic() - start) * 1000
    os.close(null)
    if status != 0:
        sys.exit(f"{command}: exit status {os.waitstatus_to_exitcode(status)}")
    return took


def pairs(ours, theirs, runs, warmup=1):
    """Runs two functions, A B A B, so that the machine's drift meets both. Gives two lists of milliseconds."""
    return rounds([ours, theirs], runs, warmup)


def rounds(functions, runs, warmup=1):
    """As `pairs`, of any number of functions. Gives one list of milliseconds for each."""
    times = [[] for _ in functions]
    for run in range(runs + warmup):
        for function, taken in zip(functions, times):
            took = function()
            if run >= warmup:
                taken.append(took)
    return times


def show(name, values):
    """Prints the figures of one command."""
    low, median, high = min(values), statistics.median(values), max(values)
    print(f"  {name:22} median {median:8.2f} ms   min {low:8.2f}   max {high:8.2f}   ({len(values)} runs)")


NOOP = 'void _start(void) { __asm__ volatile("mov $60, %eax; xor %edi, %edi; syscall"); }\n'
# Until it is killed: pause(2), again and again.
WAIT = 'void _start(void) { for (;;) __asm__ volatile("syscall" : : "a"(34) : "rcx", "r11"); }\n'


def compiled(source, *flags):
    """Compiles one C file; gives the program's path."""
    program = os.path.splitext(source)[0]
    subprocess.run(["gcc", "-O2", "-static", *flags, "-o", program, source], check=True)
    return program


def copied(name, folder):
    """A copy of a bench's source, so that what it becomes lies beside that."""
    return shutil.copy(os.path.join(HERE, name), folder)


def bundle(folder, runtime, change=lambda spec: None):
    """A root folder with nothing but a no-op and a program that waits, and `runtime`'s specification for the no-op."""
    root = os.path.join(folder, "rootfs")
    os.makedirs(os.path.join(root, "bin"))
    for name, text in (("noop", NOOP), ("wait", WAIT)):
        source = os.path.join(folder, name + ".c")
        with open(source, "w") as file:
            file.write(text)
        os.rename(compiled(source, "-nostdlib"), os.path.join(root, "bin", name))
    subprocess.run([runtime, "spec"], cwd=folder, check=True)
    specify(folder, lambda spec: spec["process"].update(terminal=False, args=["/bin/noop"]))
    specify(folder, change)
    return root


def specify(folder, change):
    """Changes a bundle's specification."""
    path = os.path.join(folder, "config.json")
    with open(path) as file:
        spec = json.load(file)
    change(spec)
    with open(path, "w") as file:
        json.dump(spec, file)


@contextlib.contextmanager
def for_crun(folder):
    """crun refuses to run on a hybrid host whose v2 hierarchy has a controller; a v1 mount of hugetlb takes it away.

    It can only be mounted where v2 passes it on to no group.
    """
    with contextlib.ExitStack() as undo:
        if os.path.exists(UNIFIED):
            passed = groups()[1]
            pass_on("-", passed)
            undo.callback(pass_on, "+", passed)
            hugetlb = os.path.join(folder, "hugetlb")
            os.mkdir(hugetlb)
            # Groups that had it are a while in going.
            again(lambda: mount_hugetlb(hugetlb), "hugetlb cannot be mounted as v1 has it")
            undo.callback(again, lambda: unmount_hugetlb(hugetlb), "v2 does not get hugetlb back")
        yield


def again(attempt, failure):
    """Calls it until it is true, for at most twenty seconds."""
    for _ in range(100):
        if attempt():
            return
        time.sleep(0.2)
    sys.exit(failure)


def mount_hugetlb(target):
    """Whether it can be mounted."""
    mount = ["mount", "-t", "cgroup", "-o", "hugetlb", "none", target]
    return os.path.ismount(target) or subprocess.run(mount, capture_output=True, check=False).returncode == 0


def unmount_hugetlb(target):
    """Whether v2 has it again. A hierarchy that is unmounted while a group in it is still going stays, mounted nowhere."""
    with open(os.path.join(os.path.dirname(UNIFIED), "cgroup.controllers")) as file:
        if "hugetlb" in file.read().split():
            return True
    mount_hugetlb(target)
    subprocess.run(["umount", target], check=True)
    return False


def floor(folder, root, controllers):
    """The bare program's arguments, with a group in each of the hierarchies that are mounted as v1 hosts have them."""
    source = copied("floor.c", folder)
    groups = [os.path.join("/sys/fs/cgroup", name) for name in controllers]
    groups = [f"{group}/hull-floor-{os.getpid()}" for group in groups if os.path.exists(group + "/cgroup.procs")]
    return [compiled(source), root, "/bin/noop", *groups]


# What the table at the end of `make bench` has: what, a ratio or a figure as text, the target or None.
ROWS = []


def row(what, figure, target=None):
    """Prints a figure, and keeps it for the table."""
    ROWS.append((what, figure, target))
    value = figure if isinstance(figure, str) else f"{figure:.3f}"
    print(f"  {what}: {value}" + (f" (target: at most {target:.2f})" if target else ""), flush=True)


def report(title, names, times, target):
    """Prints both medians and their ratio."""
    print(title)
    for name, values in zip(names, times):
        show(name, values)
    row(f"{title}, {names[0]} / {names[1]}", statistics.median(times[0]) / statistics.median(times[1]), target)


def table():
    """Prints all rows."""
    width = max(len(what) for what, _, _ in ROWS)
    print(f"\n{'':{width}}  {'figure':>10}  {'target':>7}")
    for what, figure, target in ROWS:
        value = figure if isinstance(figure, str) else f"{figure:.3f}"
        held = "" if target is None else "  held" if figure <= target else "  MISSED"
        print(f"{what:{width}}  {value:>10}  {f'{target:.2f}' if target else '':>7}{held}")


@contextlib.contextmanager
def folder():
    """A folder for everything a bench makes."""
    path = tempfile.mkdtemp(prefix="hull-bench-")
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextlib.contextmanager
def registry(path):
    """Debian's docker-registry on loopback, with all it has in a new folder; gives its address."""
    os.makedirs(path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = "127.0.0.1:%d" % free.getsockname()[1]
    config = os.path.join(path, "config.yml")
    with open(config, "w") as file:
        file.write(f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {path}/data\nhttp:\n  addr: {address}\n")
    with open(os.path.join(path, "log"), "w") as log:
        server = subprocess.Popen(["docker-registry", "serve", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(tuple(address.split(":"))):
                break
            time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


def settled(path, run):
    """`run`, once the disk has what was written before: nobody is to wait for somebody else's writes."""

    def after():
        subprocess.run(["sync", "-f", path], check=True)
        return run()

    return after


@contextlib.contextmanager
def dockerd(path):
    """A Docker daemon with all it has below `path`, and no network of its own. Gives the client's first arguments."""
    os.makedirs(path)
    before = groups()
    host = "unix://" + os.path.join(path, "socket")
    command = ["dockerd", "--data-root", os.path.join(path, "data"), "--exec-root", os.path.join(path, "exec")]
    command += ["-H", host, "--pidfile", os.path.join(path, "pid"), "--bridge", "none", "--iptables=false"]
    log = os.path.join(path, "log")
    with open(log, "w") as file:
        daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        client = [DOCKER, "-H", host]
        for _ in range(300):
            if subprocess.run(client + ["version"], capture_output=True, check=False).returncode == 0:
                break
            if daemon.poll() is not None:
                break
            time.sleep(0.1)
        else:
            daemon.terminate()
        if daemon.poll() is not None:
            with open(log) as file:
                sys.exit("dockerd does not start:\n" + file.read())
        yield client
    finally:
        daemon.terminate()
        daemon.wait()
        # Mounts that it made for its containers and layers lie below its own folder.
        with open("/proc/self/mounts") as file:
            mounts = [line.split(" ")[1] for line in file if line.split(" ")[1].startswith(path + "/")]
        for mount in reversed(mounts):
            subprocess.run(["umount", "-l", mount], check=True)
        give_back(before)


UNIFIED = "/sys/fs/cgroup/unified/cgroup.subtree_control"


def groups():
    """Docker's parent groups, and the controllers that v2 passes on where it stands beside v1."""
    passed = set()
    if os.path.exists(UNIFIED):
        with open(UNIFIED) as file:
            passed = set(file.read().split())
    return set(glob.glob("/sys/fs/cgroup/docker") + glob.glob("/sys/fs/cgroup/*/docker")), passed


def give_back(before):
    """Removes what a daemon has left of its groups: a controller in use on v2 cannot be mounted as v1's."""
    folders, passed = groups()
    for folder in folders - before[0]:
        for group, _, _ in os.walk(folder, topdown=False):
            os.rmdir(group)
    pass_on("-", passed - before[1])


def pass_on(sign, controllers):
    """Lets v2 pass these controllers on to its groups (+), or not (-)."""
    for controller in controllers:
        with open(UNIFIED, "w") as file:
            file.write(sign + controller)


def base():
    """A tar of Debian's minimal system with python3, about 200 MB, made once and kept."""
    cache = os.environ.get("CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "hull"
    )
    path = os.path.join(cache, "base.tar")
    if not os.path.exists(path):
        os.makedirs(cache, exist_ok=True)
        part = path + ".part.tar"
        command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=python3-minimal,ca-certificates"]
        subprocess.run(command + ["bookworm", part], check=True)
        os.rename(part, path)
    return path
