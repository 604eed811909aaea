"""What a program sees from inside a container."""

import os
import socket


def mounts():
    with open("/proc/self/mountinfo") as file:
        return sum(1 for _ in file)


def processes():
    return sum(1 for name in os.listdir("/proc") if name.isdigit())


print(f"host name         {socket.gethostname()}")
print(f"process           {os.getpid()}")
print(f"processes seen    {processes()}")
print(f"mounts seen       {mounts()}")
print(f"user              {os.getuid()}:{os.getgid()}")
print(f"working directory {os.getcwd()}")
print("Hello from container!")
