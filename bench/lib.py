"""What the benches share: alternating runs, medians, a Docker daemon and a base image of the bench's own."""

import contextlib
import glob
import os
import shutil
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
    for controller in passed - before[1]:
        with open(UNIFIED, "w") as file:
            file.write("-" + controller)


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
