/* What every probe shares: the record header, the maps, container identity, paths. Owns no hook.
 *
 * sensor/sources/bcc.py compiles this file followed by the probes as one program. It defines OFF_<struct>_<field> from
 * the kernel's BTF, PROBE_<stem>, HEADER_SIZE and SIZE_<stem> (the twins' declared layouts), SCOPE_ALL, RING_PAGES,
 * TICK_NS and HOST_MNT_NS. Tracepoints run with preemption off, so one scratch record per CPU serves all probes. Every loop has a
 * constant bound (the verifier accepts loops since 5.3); ring buffers need 5.8, bpf_task_pt_regs 5.15.
 */
#ifndef TOCSIN_COMMON_H
#define TOCSIN_COMMON_H

#include <uapi/linux/ptrace.h>

#define MAX_PROBES 64
#define MAX_CGROUP_DEPTH 32
#define MAX_PATH_PARTS 32
#define MAX_NAME 256
#define PATHS_MASK 8191 /* where the last part begins at the latest; a mask is what the verifier believes */
#define MAX_LAST 8192   /* longest last part: argv */
#define ID_LENGTH 64
#define S_IWGRP 0020
#define S_IWOTH 0002

#define FLAG_DEEP 1  /* more cgroup levels than we walk: reported without an id rather than not at all */
#define FLAG_SETUP 2 /* in the host's mount namespace, child of a process of another cgroup */

#define offsetof(type, member) __builtin_offsetof(type, member)
#define READ(to, base, type, field) \
	bpf_probe_read_kernel(&(to), sizeof(to), (void *)((u64)(base) + OFF_##type##_##field))

/* Every record begins with this; sensor/record.py declares the same. */
struct header {
	u32 size; /* of the whole record */
	u16 probe;
	u16 flags;
	u64 time_ns; /* CLOCK_BOOTTIME, as all times here */
	u64 start_ns;
	u64 parent_start_ns;
	u32 pid, tid, vpid, ppid; /* pid is the kernel's tgid; vpid as the container sees it */
	u32 uid, gid;
	u32 tty_major, tty_minor; /* 0, 0: no controlling terminal */
	char container[ID_LENGTH];
	char comm[16];
	char parent_comm[16];
	char tty[16];
};
_Static_assert(sizeof(struct header) == HEADER_SIZE, "sensor/record.py declares another header");

/* A per-CPU map value may have 32 KiB. Probes lay their fixed part over `body` and put variable parts after it. */
struct scratch {
	struct header head;
	u8 body[512 + PATHS_MASK + 1 + MAX_LAST + MAX_NAME];
	char name[128];
};

BPF_RINGBUF_OUTPUT(records, RING_PAGES);
BPF_PERCPU_ARRAY(losses, u64, MAX_PROBES);
BPF_PERCPU_ARRAY(scratches, struct scratch, 1);
BPF_HASH(excluded, u32, u64, 1024); /* tgid -> its start in clock ticks: a pid that was given to another is not it */

/* value, at most `most`. The barrier keeps the compiler from testing a copy: the verifier must see this very register. */
static __always_inline u64 bounded(u64 value, u64 most)
{
	asm volatile("" : "+r"(value));
	return value > most ? most : value;
}

/* By signs: a branch for each letter is more than the verifier walks in a loop. */
static __always_inline bool is_hex(const char *text)
{
	s64 wrong = 0;

	for (int i = 0; i < ID_LENGTH; i++) {
		s64 digit = text[i] - '0', letter = text[i] - 'a';

		wrong |= (digit | (9 - digit)) & (letter | (5 - letter));
	}
	return wrong >= 0;
}

/* Where in a cgroup's name of n bytes (NUL included) the id begins; the length alone tells the runtimes apart.
 * sensor/containers.py has the same table; conmon's own scopes have other lengths and are not containers.
 */
static __always_inline int id_position(int n)
{
	switch (n) {
	case 65: return 0;  /* <id>: docker and containerd with cgroupfs */
	case 70:            /* crio-<id> */
	case 76: return 5;  /* crio-<id>.scope */
	case 72:            /* libpod-<id> */
	case 78: return 7;  /* docker-<id>.scope, libpod-<id>.scope */
	case 79: return 8;  /* nerdctl-<id>.scope */
	case 86: return 15; /* cri-containerd-<id>.scope */
	}
	return -1;
}

/* Whether nobody but root may make cgroups in this one, so that root has named them. systemd gives every user session a
 * part of the tree, where the user makes cgroups with any name. A node without kernfs_iattrs is root's.
 */
static __always_inline bool is_roots(u64 kn)
{
	u64 attributes = 0;
	u32 uid = 0, gid = 0;
	u16 mode = 0;

	READ(mode, kn, kernfs_node, mode);
	READ(attributes, kn, kernfs_node, iattr);
	if (attributes) {
		READ(uid, attributes, kernfs_iattrs, ia_uid);
		READ(gid, attributes, kernfs_iattrs, ia_gid);
	}
	return !uid && !(mode & S_IWOTH) && !(gid && (mode & S_IWGRP));
}

/* The outermost container of the task: inner cgroups can be named by whoever is root in the container. All cgroups above
 * the container's must be root's; its own need not, a runtime may give it to the container's user.
 * Returns whether the task is in one, or too deep to tell.
 */
static __always_inline bool find_container(struct scratch *s, u64 task)
{
	u64 css = 0, cgroup = 0, kn = 0, name = 0;
	char *found = s->head.container; /* its first byte says so; a flag beside it doubles what the verifier walks */

	READ(css, task, task_struct, cgroups);
	READ(cgroup, css, css_set, dfl_cgrp);
	READ(kn, cgroup, cgroup, kn);
	__builtin_memset(found, 0, ID_LENGTH);
	for (int i = 0; i < MAX_CGROUP_DEPTH; i++) {
		int at;

		if (!kn)
			return found[0];
		if (found[0] && !is_roots(kn))
			__builtin_memset(found, 0, ID_LENGTH);
		READ(name, kn, kernfs_node, name);
		at = id_position(bpf_probe_read_kernel_str(s->name, sizeof(s->name), (void *)name));
		if (at >= 0) {
			/* Into a fixed place first: the verifier follows a constant index, not one that depends on `at`. */
			bpf_probe_read_kernel(s->name, ID_LENGTH, (void *)(name + at));
			if (is_hex(s->name))
				__builtin_memcpy(found, s->name, ID_LENGTH);
		}
		READ(kn, kn, kernfs_node, parent);
	}
	s->head.flags |= FLAG_DEEP;
	__builtin_memset(found, 0, ID_LENGTH); /* an inner name found on the way may be made up */
	return true;
}

static __always_inline void put_tty(struct scratch *s, u64 task)
{
	u64 signal = 0, tty = 0, driver = 0;
	int major = 0, minor = 0, index = 0;

	s->head.tty[0] = 0;
	READ(signal, task, task_struct, signal);
	READ(tty, signal, signal_struct, tty);
	if (tty) {
		bpf_probe_read_kernel_str(s->head.tty, sizeof(s->head.tty), (void *)(tty + OFF_tty_struct_name));
		READ(driver, tty, tty_struct, driver);
		READ(index, tty, tty_struct, index);
		READ(major, driver, tty_driver, major);
		READ(minor, driver, tty_driver, minor_start);
	}
	s->head.tty_major = major;
	s->head.tty_minor = minor + index;
}

static __always_inline void put_process(struct scratch *s, u64 task, u64 parent)
{
	u64 leader = 0, pid = 0, cred = 0;
	u32 level = 0;

	READ(leader, task, task_struct, group_leader);
	READ(s->head.start_ns, leader, task_struct, start_boottime);
	READ(pid, leader, task_struct, thread_pid);
	READ(level, pid, pid, level);
	/* struct upid is an int and a pointer: 16 bytes on every 64-bit kernel. */
	bpf_probe_read_kernel(&s->head.vpid, 4, (void *)(pid + OFF_pid_numbers + (u64)level * 16));
	READ(cred, task, task_struct, cred);
	READ(s->head.uid, cred, cred, uid);
	READ(s->head.gid, cred, cred, gid);
	READ(leader, parent, task_struct, group_leader);
	READ(s->head.parent_start_ns, leader, task_struct, start_boottime);
	bpf_probe_read_kernel_str(s->head.parent_comm, 16, (void *)(parent + OFF_task_struct_comm));
	bpf_get_current_comm(s->head.comm, 16);
	put_tty(s, task);
}

/* A task in the container's cgroup but still in the host's mount namespace, started by a task of another cgroup: the
 * container runtime setting up, or somebody who broke out. exec.py tells them apart by what is executed.
 */
static __always_inline void mark_setup(struct scratch *s, u64 task, u64 parent)
{
	u64 nsproxy = 0, mnt_ns = 0, mine = 0, its = 0;
	u32 inum = 0;

	READ(nsproxy, task, task_struct, nsproxy);
	READ(mnt_ns, nsproxy, nsproxy, mnt_ns);
	bpf_probe_read_kernel(&inum, 4, (void *)(mnt_ns + OFF_mnt_namespace_ns + OFF_ns_common_inum));
	if (inum != HOST_MNT_NS)
		return;
	READ(mine, task, task_struct, cgroups);
	READ(mine, mine, css_set, dfl_cgrp);
	READ(its, parent, task_struct, cgroups);
	READ(its, its, css_set, dfl_cgrp);
	if (mine != its)
		s->head.flags |= FLAG_SETUP;
}

static __always_inline bool is_excluded(u64 task)
{
	u64 leader = 0, start_ns = 0, *tick;
	u32 pid = 0;

	READ(pid, task, task_struct, tgid);
	tick = excluded.lookup(&pid);
	if (!tick)
		return false;
	READ(leader, task, task_struct, group_leader);
	READ(start_ns, leader, task_struct, start_boottime);
	return start_ns / TICK_NS == *tick;
}

/* The scratch record with its header filled, or NULL when this task is not to be reported. */
static __always_inline struct scratch *begin(u32 probe)
{
	int zero = 0;
	u64 task = bpf_get_current_task(), parent = 0, id = bpf_get_current_pid_tgid();
	struct scratch *s = scratches.lookup(&zero);

	READ(parent, task, task_struct, real_parent);
	if (!s || is_excluded(task) || is_excluded(parent))
		return NULL;
	s->head.flags = 0;
	if (!find_container(s, task) && !SCOPE_ALL)
		return NULL;
	s->head.probe = probe;
	s->head.time_ns = bpf_ktime_get_boot_ns();
	s->head.pid = id >> 32;
	s->head.tid = (u32)id;
	READ(s->head.ppid, parent, task_struct, tgid);
	put_process(s, task, parent);
	if (s->head.container[0])
		mark_setup(s, task, parent);
	return s;
}

/* Sends the header and `size` bytes of body, or counts the loss. */
static __always_inline int send(struct scratch *s, u32 probe, u32 body_size)
{
	u64 size = sizeof(struct header) + body_size, *lost;

	size = bounded(size, offsetof(struct scratch, name));
	s->head.size = size;
	if (records.ringbuf_output(s, size, 0)) {
		lost = losses.lookup(&probe);
		if (lost)
			*lost += 1;
	}
	return 0;
}

/* Appends the names from (mnt, dentry) up to the root of its mount namespace, each NUL-ended, innermost first; crosses
 * mounts. Returns the new position. More parts than MAX_PATH_PARTS, or longer ones than there is room for, set *cut.
 */
static __always_inline u32 put_path(struct scratch *s, u32 position, u64 mnt, u64 dentry, u16 *cut)
{
	u64 root = 0, parent = 0, name = 0, mount = 0, outer = 0, full;
	int n;

	for (int i = 0; i < MAX_PATH_PARTS; i++) {
		READ(root, mnt, vfsmount, mnt_root);
		READ(parent, dentry, dentry, d_parent);
		bpf_probe_read_kernel(&name, 8, (void *)(dentry + OFF_dentry_d_name + OFF_qstr_name));
		if (dentry == root) {
			mount = mnt - OFF_mount_mnt;
			READ(outer, mount, mount, mnt_parent);
			if (outer == mount)
				return position;
			READ(dentry, mount, mount, mnt_mountpoint);
			mnt = outer + OFF_mount_mnt;
			continue;
		}
		/* The sign: a branch here would be one too many for the verifier. What does not fit is overwritten. */
		full = (PATHS_MASK - MAX_NAME - (u64)position) >> 63;
		*cut |= full;
		position &= PATHS_MASK;
		n = bpf_probe_read_kernel_str(&s->body[position], MAX_NAME, (void *)name);
		if (n > 0 && n <= MAX_NAME)
			position += n & (full - 1);
		if (dentry == parent)
			return position; /* in no directory: a memfd */
		dentry = parent;
	}
	*cut = 1;
	return position;
}

/* The path of task->mm->exe_file. */
static __always_inline u32 put_executable(struct scratch *s, u32 position, u16 *cut)
{
	u64 mm = 0, file = 0, mnt = 0, dentry = 0;

	READ(mm, bpf_get_current_task(), task_struct, mm);
	READ(file, mm, mm_struct, exe_file);
	if (!file)
		return position;
	bpf_probe_read_kernel(&mnt, 8, (void *)(file + OFF_file_f_path + OFF_path_mnt));
	bpf_probe_read_kernel(&dentry, 8, (void *)(file + OFF_file_f_path + OFF_path_dentry));
	return put_path(s, position, mnt, dentry, cut);
}

/* The open file behind a descriptor of the current task, or 0. */
static __always_inline u64 file_of(u32 fd)
{
	u64 files = 0, table = 0, array = 0, file = 0;
	u32 max = 0;

	READ(files, bpf_get_current_task(), task_struct, files);
	READ(table, files, files_struct, fdt);
	READ(max, table, fdtable, max_fds);
	if (fd >= max)
		return 0;
	READ(array, table, fdtable, fd);
	bpf_probe_read_kernel(&file, 8, (void *)(array + (u64)fd * 8));
	return file;
}

#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define S_IFREG 0100000
#define S_IFCHR 0020000
#define S_IFIFO 0010000
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10

static __always_inline u16 file_type(u64 file)
{
	u64 inode = 0;
	u16 mode = 0;

	READ(inode, file, file, f_inode);
	READ(mode, inode, inode, i_mode);
	return mode & S_IFMT;
}

/* The struct sock of a file that is a socket. */
static __always_inline u64 sock_of(u64 file)
{
	u64 socket = 0, sock = 0;

	READ(socket, file, file, private_data);
	READ(sock, socket, socket, sk);
	return sock;
}

#endif
