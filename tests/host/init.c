/* SPDX-License-Identifier: MIT */
/*
 * init of the emulated KVM host - see tests/host/run, which builds, boots and watches it.
 *
 * Theory of operation
 *
 * The initramfs holds this program and the kernel modules, named in the order they go in. The caller's root
 * filesystem comes by 9p and becomes the root of the command's world, with fresh /proc, /sys, /dev, /tmp and
 * /dev/shm on top. What to run lies in the caller's work directory (vmm_host.work= on the kernel command
 * line): argv and env are NUL-terminated strings, cwd is one path, keep the directories that must stay
 * visible though /tmp is mounted over.
 *
 * Two ways lead out. The command's output goes to ttyS0. Everything the caller's script wants to know goes to
 * the port 0xe9 (isa-debugcon), which the emulator writes to a file byte by byte: "b" as the command begins,
 * "." ten times a second of virtual time, and "s<status>\n" at the end. A machine without a dot for long
 * stands still, and one that ended without a status died; both are the emulator's faults, never the
 * command's. The port 0xf4 (isa-debug-exit) ends the machine without the delay of a shutdown.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/if.h>
#include <linux/rtc.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define CONTROL_PORT 0xe9
#define EXIT_PORT    0xf4
#define CONSOLE	     "/dev/ttyS0"
#define ROOT	     "/root"
/*
 * A loose cache believes that nobody else changes the files while this machine runs. Without it each start of
 * a program reads the program anew, which takes longer than most commands, and shows in every count of
 * instructions.
 */
#define NINEP_OPTIONS "trans=virtio,version=9p2000.L,msize=512000,cache=loose"
/* Rare enough not to show in a count of instructions. */
#define TICK_NS	 100000000
#define MAX_KEEP 8

/* Where a list of NUL-terminated strings ends up, ready for execve(). */
struct strings {
	char *text;
	char **list;
	int count;
};

static void control(const char *text)
{
	while (*text)
		outb((unsigned char)*text++, CONTROL_PORT);
}

/* Without a status on the control port the caller knows that it was the host that failed. */
__attribute__((noreturn, format(printf, 1, 2))) static void die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	printf("host: init: ");
	vprintf(format, args);
	printf(": %s\n", strerror(errno));
	va_end(args);
	fflush(stdout);
	tcdrain(STDOUT_FILENO);
	control("f");
	outb(0, EXIT_PORT);
	for (;;)
		pause();
}

static void mount_or_die(const char *source, const char *target, const char *type, const char *options)
{
	if (mkdir(target, 0755) < 0 && errno != EEXIST)
		die("mkdir %s", target);
	if (mount(source, target, type, 0, options) < 0)
		die("mount %s at %s", source, target);
}

/* The console as a plain byte stream (no CR before LF), or as a terminal somebody types at. */
static void open_console(bool terminal)
{
	struct termios mode;
	int fd = open(CONSOLE, O_RDWR | (terminal ? 0 : O_NOCTTY));

	if (fd < 0)
		die("open %s", CONSOLE);
	if (tcgetattr(fd, &mode) < 0)
		die("tcgetattr %s", CONSOLE);
	mode.c_cflag = (mode.c_cflag & ~(tcflag_t)CBAUD) | B115200;
	if (!terminal) {
		cfmakeraw(&mode);
		mode.c_cflag |= CLOCAL;
	}
	if (tcsetattr(fd, TCSANOW, &mode) < 0)
		die("tcsetattr %s", CONSOLE);
	dup2(fd, STDIN_FILENO);
	dup2(fd, STDOUT_FILENO);
	dup2(fd, STDERR_FILENO);
	if (fd > STDERR_FILENO)
		close(fd);
}

static char *read_file(const char *path, size_t *size)
{
	size_t room = 1 << 16, used = 0;
	char *text = malloc(room);
	ssize_t n;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		die("open %s", path);
	while (text && (n = read(fd, text + used, room - used - 1)) > 0) {
		used += (size_t)n;
		if (room - used == 1)
			text = realloc(text, room *= 2);
	}
	if (!text || n < 0)
		die("read %s", path);
	close(fd);
	text[used] = '\0';
	*size = used;
	return text;
}

static struct strings read_strings(const char *directory, const char *name)
{
	struct strings s = { 0 };
	char path[PATH_MAX];
	size_t size;

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	s.text = read_file(path, &size);
	s.list = malloc((size + 1) * sizeof(*s.list));
	if (!s.list)
		die("%s", path);
	for (char *p = s.text; p < s.text + size; p += strlen(p) + 1)
		s.list[s.count++] = p;
	s.list[s.count] = NULL;
	return s;
}

/* The value of name= on the kernel command line, "" without. */
static const char *parameter(const char *cmdline, const char *name)
{
	static const char nothing[] = "";
	const char *p = strstr(cmdline, name);
	size_t length;

	if (!p)
		return nothing;
	p += strlen(name);
	length = strcspn(p, " \n");
	return strndup(p, length);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_module(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/*
 * The kernel corrects its first idea of the TSC's frequency within seconds. KVM keeps the one it finds when it is
 * loaded and gives it to every guest; should the two differ by more than 250 ppm, on a CPU that cannot scale the TSC
 * ("user requested TSC rate below hardware speed"), a guest's APIC timer waits for an hour instead of a millisecond.
 * The clock source is "tsc", and no more "tsc-early", when the frequency is final.
 */
static void wait_for_clock(void)
{
	const struct timespec tick = { .tv_nsec = 10000000 };
	const char *path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
	char name[16];

	mount_or_die("sysfs", "/sys", "sysfs", NULL);
	for (int i = 0; i < 1000; i++) {
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? -1 : read(fd, name, sizeof(name));

		if (n < 0)
			die("%s", path);
		close(fd);
		if (n == 4 && !memcmp(name, "tsc\n", 4))
			return;
		nanosleep(&tick, NULL);
	}
	errno = ETIMEDOUT;
	die("%s", path);
}

static void insert_modules(void)
{
	struct dirent **names;
	int count = scandir("/modules", &names, is_module, by_name);

	for (int i = 0; i < count; i++) {
		char path[PATH_MAX];
		int fd;

		snprintf(path, sizeof(path), "/modules/%s", names[i]->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || syscall(SYS_finit_module, fd, "", 0) < 0)
			die("insmod %s", names[i]->d_name);
		close(fd);
	}
}

static void make_directories(char *path)
{
	for (char *p = path + 1; *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		mkdir(path, 0755);
		*p = '/';
	}
	mkdir(path, 0755);
}

/* A fresh /tmp, with the directories the command needs to see bound back to their places. */
static void mount_tmp(const struct strings *keep)
{
	int fds[MAX_KEEP];
	char path[PATH_MAX], from[32];

	if (keep->count > MAX_KEEP)
		die("more than %d directories to keep", MAX_KEEP);
	for (int i = 0; i < keep->count; i++) {
		snprintf(path, sizeof(path), ROOT "%s", keep->list[i]);
		fds[i] = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (fds[i] < 0)
			die("open %s", path);
	}
	mount_or_die("tmp", ROOT "/tmp", "tmpfs", "mode=1777");
	for (int i = 0; i < keep->count; i++) {
		snprintf(path, sizeof(path), ROOT "%s", keep->list[i]);
		make_directories(path);
		snprintf(from, sizeof(from), "/proc/self/fd/%d", fds[i]);
		if (mount(from, path, NULL, MS_BIND, NULL) < 0)
			die("bind %s", path);
		close(fds[i]);
	}
}

static void mount_world(const struct strings *keep)
{
	mount_tmp(keep);
	mount_or_die("proc", ROOT "/proc", "proc", NULL);
	mount_or_die("sysfs", ROOT "/sys", "sysfs", NULL);
	mount_or_die("debugfs", ROOT "/sys/kernel/debug", "debugfs", NULL);
	mount_or_die("devtmpfs", ROOT "/dev", "devtmpfs", NULL);
	mount_or_die("devpts", ROOT "/dev/pts", "devpts", "mode=620,ptmxmode=666");
	mount_or_die("shm", ROOT "/dev/shm", "tmpfs", "mode=1777");
	/* What udev would have made. */
	symlink("/proc/self/fd", ROOT "/dev/fd");
	symlink("fd/0", ROOT "/dev/stdin");
	symlink("fd/1", ROOT "/dev/stdout");
	symlink("fd/2", ROOT "/dev/stderr");
	chmod(ROOT "/dev/kvm", 0666);
}

static void raise_loopback(void)
{
	struct ifreq request = { .ifr_name = "lo" };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	request.ifr_flags = IFF_UP | IFF_RUNNING;
	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		die("loopback");
	close(fd);
}

/*
 * The emulator's vCPU thread clears a bit of its pending interrupts (SVM's virtual one) without a lock, and so at times
 * loses the one its other thread has just set: the local APIC's request register then shows the timer's vector, the CPU
 * is halted with interrupts on, and nothing wakes it. Any later interrupt makes the APIC look again, so there is one a
 * second, from the clock's hardware. It stays on as long as the descriptor is open.
 */
static void keep_awake(void)
{
	int fd = open("/dev/rtc0", O_RDONLY | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, RTC_UIE_ON, 0) < 0)
		die("/dev/rtc0");
}

/* Guests larger than this machine's memory, of which they touch little, are part of the tests. */
static void allow_overcommit(void)
{
	int fd = open("/proc/sys/vm/overcommit_memory", O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, "1", 1) != 1)
		die("overcommit_memory");
	close(fd);
}

__attribute__((noreturn)) static void run_command(const struct strings *argv, const struct strings *env,
						  const char *cwd, bool terminal)
{
	if (terminal) {
		setsid();
		ioctl(STDIN_FILENO, TIOCSCTTY, 1);
	} else {
		int null = open("/dev/null", O_RDONLY);

		dup2(null, STDIN_FILENO);
		if (null > STDERR_FILENO)
			close(null);
	}
	environ = env->list;
	if (chdir(cwd) < 0) {
		fprintf(stderr, "host: %s: %s\n", cwd, strerror(errno));
		_exit(126);
	}
	execvp(argv->list[0], argv->list);
	fprintf(stderr, "host: %s: %s\n", argv->list[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

/* Wait for the command, with signs of life on the control port, reaping all that ends. Returns its status. */
static int wait_for(pid_t command)
{
	const struct timespec tick = { .tv_nsec = TICK_NS };
	sigset_t child;
	pid_t pid;
	int status;

	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	for (;;) {
		while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
			if (pid == command)
				return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		if (sigtimedwait(&child, NULL, &tick) < 0 && errno == EAGAIN)
			control(".");
	}
}

static void start_and_wait(const char *work, bool terminal)
{
	char directory[PATH_MAX], report[16];
	struct strings argv, env, cwd, keep;
	sigset_t child;
	pid_t pid;

	snprintf(directory, sizeof(directory), ROOT "%s", work);
	argv = read_strings(directory, "argv");
	env = read_strings(directory, "env");
	cwd = read_strings(directory, "cwd");
	keep = read_strings(directory, "keep");
	if (!argv.count || !cwd.count)
		die("%s: empty", directory);
	mount_world(&keep);
	/* Moved to the top, as switch_root does it: below a mere chroot nobody may make a user namespace (passt does).
	 */
	if (chdir(ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0)
		die("chroot");
	sigemptyset(&child);
	sigaddset(&child, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child, NULL);
	control("b");
	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid) {
		sigprocmask(SIG_UNBLOCK, &child, NULL);
		run_command(&argv, &env, cwd.list[0], terminal);
	}
	snprintf(report, sizeof(report), "s%d\n", wait_for(pid));
	kill(-1, SIGKILL);
	sync();
	tcdrain(STDOUT_FILENO);
	control(report);
}

int main(void)
{
	const char *work;
	bool terminal, counting;
	char *cmdline;
	size_t size;

	if (ioperm(CONTROL_PORT, 1, 1) < 0 || ioperm(EXIT_PORT, 4, 1) < 0)
		return 1;
	mount_or_die("devtmpfs", "/dev", "devtmpfs", NULL);
	mount_or_die("proc", "/proc", "proc", NULL);
	cmdline = read_file("/proc/cmdline", &size);
	work = parameter(cmdline, "vmm_host.work=");
	terminal = *parameter(cmdline, "vmm_host.terminal=") != '\0';
	counting = *parameter(cmdline, "vmm_host.counting=") != '\0';
	open_console(terminal);
	/* Under -icount the first idea is right, and waiting would take long. */
	if (!counting)
		wait_for_clock();
	insert_modules();
	mount_or_die("root", ROOT, "9p", NINEP_OPTIONS);
	raise_loopback();
	allow_overcommit();
	/* Under -icount there is one thread, and each interrupt would be counted. */
	if (!counting)
		keep_awake();
	start_and_wait(work, terminal);
	outb(0, EXIT_PORT);
	for (;;)
		pause();
}
