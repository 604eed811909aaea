/* Executes a command one instruction at a time, with all that it forks, and prints each address between LOW and HIGH that
 * is executed, once, in the order of the first times. What a process executes after its own exec is not looked at.
 *
 *   touched LOW HIGH COMMAND [ARGUMENT...]       (addresses in hexadecimal; the list goes to descriptor 3)
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static void step(pid_t pid, int signal)
{
    /* It may have been killed meanwhile. */
    if (ptrace(PTRACE_SINGLESTEP, pid, 0, signal) == -1 && errno != ESRCH)
        perror("touched: step");
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fputs("usage: touched LOW HIGH COMMAND [ARGUMENT...]\n", stderr);
        return 2;
    }
    unsigned long low = strtoul(argv[1], NULL, 16), high = strtoul(argv[2], NULL, 16);
    unsigned char *seen = calloc(high - low, 1);
    FILE *list = fdopen(3, "w");
    pid_t first = fork();
    if (!seen || !list || first == -1) {
        perror("touched");
        return 2;
    }
    if (first == 0) {
        fclose(list);
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        execvp(argv[3], argv + 3);
        perror(argv[3]);
        _exit(127);
    }
    int status, executed = 0;
    pid_t pid;
    while ((pid = waitpid(-1, &status, __WALL)) > 0) {
        if (!WIFSTOPPED(status)) {
            /* What it leaves behind goes on without us. */
            if (pid == first)
                break;
            continue;
        }
        int signal = WSTOPSIG(status), event = status >> 16;
        if (pid == first && !executed) {
            executed = 1;
            ptrace(PTRACE_SETOPTIONS, pid, 0,
                   PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC);
        } else if (event == PTRACE_EVENT_EXEC) {
            ptrace(PTRACE_DETACH, pid, 0, 0);
            continue;
        }
        struct user_regs_struct registers;
        if (ptrace(PTRACE_GETREGS, pid, 0, &registers) == 0 && registers.rip >= low && registers.rip < high
            && !seen[registers.rip - low]) {
            seen[registers.rip - low] = 1;
            fprintf(list, "%llx\n", registers.rip);
        }
        step(pid, signal == SIGTRAP || signal == SIGSTOP || event ? 0 : signal);
    }
    fclose(list);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
