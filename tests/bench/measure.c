/* SPDX-License-Identifier: MIT */
/*
 * measure - run one monitor until its guest speaks, and say what that took.
 *
 *	measure [--marker TEXT] [--guest-mib N] [--timeout SECONDS] [--log FILE] COMMAND [ARGUMENT]...
 *
 * Theory of operation
 *
 * The command's standard output is a pipe that this program reads; its standard input is empty. The clock starts right
 * before exec and is read again when the marker has come through the pipe. At that moment the command is stopped, so
 * that its memory map, its threads and KVM's counters can be read as they were; then it goes on to its end. Where the
 * clock counts instructions (tests/host/run --icount), so does this. Reading at a real-time priority makes the reader
 * run as soon as there is something to read: what the command does after the marker would be counted otherwise.
 *
 * Prints one JSON object. Times are nanoseconds; null is what could not be found out. The exit status is 0 if there is
 * an object, whatever became of the command, and 1 with a sentence on standard error otherwise.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KVM_DEBUGFS "/sys/kernel/debug/kvm"
#define CONSOLE_MAX (4 << 20) /* more than any boot prints; the rest is counted, not kept */

struct memory {
	uint64_t anonymous, resident; /* KiB, guest RAM left out */
	uint64_t guest;		      /* KiB of guest RAM that are resident */
	unsigned int libraries;
};

struct run {
	const char *marker;
	const char *log;
	uint64_t guest_kib;
	uint64_t timeout;
	pid_t pid;
	int pipe;
	uint64_t *start; /* shared with the child, which writes it right before exec */
	char *console;
	size_t used, total;
	bool seen, timed_out;
	uint64_t marker_ns, exit_ns;
	size_t marker_bytes;
	int status;
};

static __attribute__((noreturn)) void die(const char *what)
{
	fprintf(stderr, "measure: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now(clockid_t clock)
{
	struct timespec ts;

	if (clock_gettime(clock, &ts) < 0)
		return 0;
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

static void start(struct run *run, char **command)
{
	struct sched_param priority = { .sched_priority = 1 };
	int fds[2], errors;

	run->start = mmap(NULL, sizeof(*run->start), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	run->console = malloc(CONSOLE_MAX);
	if (run->start == MAP_FAILED || !run->console || pipe2(fds, O_CLOEXEC) < 0)
		die("start");
	run->pid = fork();
	if (run->pid < 0)
		die("fork");
	if (run->pid == 0) {
		int nothing = open("/dev/null", O_RDONLY);

		errors = open(run->log ? run->log : "/dev/null", O_WRONLY | O_CREAT | O_TRUNC, 0644);
		if (nothing < 0 || errors < 0 || dup2(nothing, 0) < 0 || dup2(fds[1], 1) < 0 || dup2(errors, 2) < 0)
			_exit(126);
		close(nothing);
		close(errors);
		*run->start = now(CLOCK_MONOTONIC);
		execvp(command[0], command);
		_exit(127);
	}
	close(fds[1]);
	run->pipe = fds[0];
	/* Without the right to it, the measurement is a little less sharp. */
	sched_setscheduler(0, SCHED_FIFO, &priority);
}

/* Where KVM's counters of this process's machine are: a directory PID-FD, by the thread that created it. */
static bool kvm_directory(const struct run *run, char *path, size_t size)
{
	DIR *dir = opendir(KVM_DEBUGFS);
	struct dirent *entry;
	bool found = false;

	while (dir && !found && (entry = readdir(dir))) {
		char task[64], *end;
		long id = strtol(entry->d_name, &end, 10);

		if (*end != '-')
			continue;
		snprintf(task, sizeof(task), "/proc/%d/task/%ld", (int)run->pid, id);
		found = access(task, F_OK) == 0;
		if (found)
			snprintf(path, size, KVM_DEBUGFS "/%s", entry->d_name);
	}
	if (dir)
		closedir(dir);
	return found;
}

/* KVM shows a counter of the machine as the sum over its vCPUs; one that is not a single number is a histogram. */
static void print_kvm(const struct run *run)
{
	char path[512], file[1024], text[64];
	const char *comma = "";
	struct dirent *entry;
	DIR *dir;

	if (!kvm_directory(run, path, sizeof(path)) || !(dir = opendir(path))) {
		printf("null");
		return;
	}
	putchar('{');
	while ((entry = readdir(dir))) {
		unsigned long long value;
		char *end;
		FILE *f;

		if (entry->d_type != DT_REG || strstr(entry->d_name, "hist"))
			continue;
		snprintf(file, sizeof(file), "%s/%s", path, entry->d_name);
		f = fopen(file, "r");
		if (!f)
			continue;
		if (fgets(text, sizeof(text), f)) {
			value = strtoull(text, &end, 10);
			if (end != text && (*end == '\n' || *end == '\0') && value) {
				printf("%s\"%s\": %llu", comma, entry->d_name, value);
				comma = ", ";
			}
		}
		fclose(f);
	}
	closedir(dir);
	putchar('}');
}

static bool kib(const char *line, const char *key, uint64_t *value)
{
	size_t length = strlen(key);

	return !strncmp(line, key, length) && sscanf(line + length, " %" SCNu64, value) == 1;
}

/* A mapping of a quarter of the guest's RAM or more is guest RAM: no monitor has another one of that size in use. */
static bool read_memory(const struct run *run, struct memory *memory)
{
	char path[64], line[1024], last[1024] = "";
	uint64_t value;
	bool guest = false;
	FILE *f;

	memset(memory, 0, sizeof(*memory));
	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)run->pid);
	f = fopen(path, "r");
	if (!f)
		return false;
	while (fgets(line, sizeof(line), f)) {
		unsigned long begin, end;
		int at = 0;

		if (sscanf(line, "%lx-%lx %*s %*s %*s %*s %n", &begin, &end, &at) == 2) {
			guest = (end - begin) / 1024 >= run->guest_kib / 4;
			line[strcspn(line, "\n")] = '\0';
			if (strstr(line, ".so") && strcmp(line + at, last) != 0) {
				memory->libraries++;
				snprintf(last, sizeof(last), "%s", line + at);
			}
		} else if (kib(line, "Rss:", &value)) {
			*(guest ? &memory->guest : &memory->resident) += value;
		} else if (!guest && kib(line, "Anonymous:", &value)) {
			memory->anonymous += value;
		}
	}
	fclose(f);
	return true;
}

static unsigned int count_threads(const struct run *run)
{
	char path[64];
	struct dirent *entry;
	unsigned int count = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)run->pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir)))
		count += entry->d_name[0] != '.';
	if (dir)
		closedir(dir);
	return count;
}

static void at_marker(struct run *run)
{
	struct memory memory;
	clockid_t clock;
	int status;

	kill(run->pid, SIGSTOP);
	if (waitpid(run->pid, &status, WUNTRACED) < 0 || !WIFSTOPPED(status)) {
		fprintf(stderr, "measure: the command ended while it was being stopped\n");
		exit(1);
	}
	printf("\"marker_ns\": %" PRIu64 ", \"marker_bytes\": %zu, ", run->marker_ns - *run->start, run->marker_bytes);
	if (clock_getcpuclockid(run->pid, &clock) == 0)
		printf("\"cpu_ns\": %" PRIu64 ", ", now(clock));
	printf("\"threads\": %u, ", count_threads(run));
	if (read_memory(run, &memory))
		printf("\"anon_kib\": %" PRIu64 ", \"rss_kib\": %" PRIu64 ", \"ram_kib\": %" PRIu64
		       ", \"libraries\": %u, ",
		       memory.anonymous, memory.resident, memory.guest, memory.libraries);
	printf("\"kvm\": ");
	print_kvm(run);
	printf(", ");
	kill(run->pid, SIGCONT);
}

/* Takes what is in the pipe; false at its end. */
static bool take(struct run *run)
{
	char buffer[4096];
	ssize_t n = read(run->pipe, buffer, sizeof(buffer));
	size_t keep;

	if (n < 0 && errno == EINTR)
		return true;
	if (n <= 0)
		return false;
	keep = (size_t)n < CONSOLE_MAX - run->used ? (size_t)n : CONSOLE_MAX - run->used;
	memcpy(run->console + run->used, buffer, keep);
	run->used += keep;
	run->total += (size_t)n;
	if (!run->seen && run->marker && memmem(run->console, run->used, run->marker, strlen(run->marker))) {
		run->marker_ns = now(CLOCK_MONOTONIC);
		run->marker_bytes = run->total;
		run->seen = true;
		at_marker(run);
	}
	return true;
}

static void follow(struct run *run)
{
	uint64_t deadline = now(CLOCK_MONOTONIC) + run->timeout * 1000000000ULL;

	for (;;) {
		struct pollfd ready = { .fd = run->pipe, .events = POLLIN };
		uint64_t at = now(CLOCK_MONOTONIC);

		if (at >= deadline && !run->timed_out) {
			run->timed_out = true;
			kill(run->pid, SIGKILL);
		}
		if (poll(&ready, 1, run->timed_out ? 1000 : (int)((deadline - at) / 1000000 + 1)) < 0 && errno != EINTR)
			die("poll");
		if (ready.revents && !take(run))
			break;
		if (run->timed_out && !ready.revents)
			break;
	}
	while (waitpid(run->pid, &run->status, 0) < 0)
		if (errno != EINTR)
			die("waitpid");
	run->exit_ns = now(CLOCK_MONOTONIC);
}

static void write_log(const struct run *run)
{
	char path[4096];
	FILE *f;

	if (!run->log)
		return;
	snprintf(path, sizeof(path), "%s.console", run->log);
	f = fopen(path, "w");
	if (!f || fwrite(run->console, 1, run->used, f) != run->used || fclose(f))
		die(path);
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "marker", required_argument, NULL, 'm' },
						 { "guest-mib", required_argument, NULL, 'g' },
						 { "timeout", required_argument, NULL, 't' },
						 { "log", required_argument, NULL, 'l' },
						 { NULL, 0, NULL, 0 } };
	struct run run = { .timeout = 60, .guest_kib = 256 << 10 };
	int c;

	while ((c = getopt_long(argc, argv, "+", options, NULL)) != -1) {
		switch (c) {
		case 'm':
			run.marker = optarg;
			break;
		case 'g':
			run.guest_kib = strtoull(optarg, NULL, 10) << 10;
			break;
		case 't':
			run.timeout = strtoull(optarg, NULL, 10);
			break;
		case 'l':
			run.log = optarg;
			break;
		default:
			return 1;
		}
	}
	if (optind == argc) {
		fprintf(stderr,
			"usage: measure [--marker TEXT] [--guest-mib N] [--timeout SECONDS] [--log FILE] COMMAND...\n");
		return 1;
	}
	start(&run, argv + optind);
	printf("{");
	follow(&run);
	printf("\"exit_ns\": %" PRIu64 ", \"bytes\": %zu, \"timed_out\": %s, ", run.exit_ns - *run.start, run.total,
	       run.timed_out ? "true" : "false");
	if (WIFEXITED(run.status))
		printf("\"status\": %d}\n", WEXITSTATUS(run.status));
	else
		printf("\"status\": %d}\n", 128 + WTERMSIG(run.status));
	write_log(&run);
	return 0;
}
