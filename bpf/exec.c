/* exec: a program was started. Hook: raw tracepoint sched_process_exec, where the new mm holds the whole argv and the
 * kernel has resolved links, scripts and relative names. Twin: sensor/probes/exec.py.
 */
#include "common.h"

#define MAX_ANCESTORS 32

enum stream { CLOSED, OTHER, SOCKET_INET, SOCKET_UNIX, PIPE, CHAR, REGULAR };

struct ancestor {
	u64 start_ns;
	u32 pid;
	u32 same_cgroup;
};

struct exec {
	u32 argc;
	u32 args_size;       /* of all arguments, also of what is cut */
	u16 ancestors;       /* how many follow, parent first */
	u16 executable_size; /* then the parts of the executable's path, */
	u16 directory_size;  /* of the working directory, */
	u16 args_kept;       /* and the arguments, NUL-ended each */
	u16 executable_cut;
	u16 directory_cut;
	u8 stream[3];
	u8 unused;
};
_Static_assert(sizeof(struct exec) == SIZE_exec, "sensor/probes/exec.py declares another record");

static __always_inline u8 stream_of(u32 fd)
{
	u64 file = file_of(fd);
	u16 family = 0;

	if (!file)
		return CLOSED;
	switch (file_type(file)) {
	case S_IFIFO: return PIPE;
	case S_IFCHR: return CHAR;
	case S_IFREG: return REGULAR;
	case S_IFSOCK:
		READ(family, sock_of(file), sock_common, skc_family);
		if (family == AF_INET || family == AF_INET6)
			return SOCKET_INET;
		return family == AF_UNIX ? SOCKET_UNIX : OTHER;
	}
	return OTHER;
}

/* Parent first, up to the host's init; user space cuts the chain where the container ends. */
static __always_inline u32 put_ancestors(struct scratch *s)
{
	u64 task = bpf_get_current_task(), leader = 0, mine = 0, its = 0;
	struct ancestor *all = (struct ancestor *)(s->body + sizeof(struct exec));

	READ(mine, task, task_struct, cgroups);
	READ(mine, mine, css_set, dfl_cgrp);
	for (int i = 0; i < MAX_ANCESTORS; i++) {
		READ(task, task, task_struct, real_parent);
		READ(all[i].pid, task, task_struct, tgid);
		if (!all[i].pid)
			return i;
		READ(leader, task, task_struct, group_leader);
		READ(all[i].start_ns, leader, task_struct, start_boottime);
		READ(its, task, task_struct, cgroups);
		READ(its, its, css_set, dfl_cgrp);
		all[i].same_cgroup = its == mine;
	}
	return MAX_ANCESTORS;
}

static __always_inline u32 put_directory(struct scratch *s, u32 position, u16 *cut)
{
	u64 fs = 0, mnt = 0, dentry = 0;

	READ(fs, bpf_get_current_task(), task_struct, fs);
	bpf_probe_read_kernel(&mnt, 8, (void *)(fs + OFF_fs_struct_pwd + OFF_path_mnt));
	bpf_probe_read_kernel(&dentry, 8, (void *)(fs + OFF_fs_struct_pwd + OFF_path_dentry));
	return put_path(s, position, mnt, dentry, cut);
}

static __always_inline u32 put_args(struct scratch *s, struct exec *e, u32 position)
{
	u64 mm = 0, start = 0, end = 0, size;

	READ(mm, bpf_get_current_task(), task_struct, mm);
	READ(start, mm, mm_struct, arg_start);
	READ(end, mm, mm_struct, arg_end);
	e->args_size = end - start;
	e->args_kept = 0;
	size = bounded(end - start, MAX_LAST);
	position &= PATHS_MASK;
	/* The kernel has just written these pages; should one be gone all the same, args_kept stays 0 and says so. */
	if (bpf_probe_read_user(&s->body[position], size, (void *)start))
		return position;
	e->args_kept = size;
	return position + size;
}

int tocsin_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct scratch *s = begin(PROBE_exec);
	struct exec *e;
	u32 position, before;

	if (!s)
		return 0;
	e = (struct exec *)s->body;
	e->executable_cut = e->directory_cut = e->unused = 0;
	READ(e->argc, ctx->args[2], linux_binprm, argc);
	for (int i = 0; i < 3; i++)
		e->stream[i] = stream_of(i);
	e->ancestors = put_ancestors(s);
	before = sizeof(struct exec) + e->ancestors * sizeof(struct ancestor);
	position = put_executable(s, before, &e->executable_cut);
	e->executable_size = position - before;
	before = position;
	position = put_directory(s, before, &e->directory_cut);
	e->directory_size = position - before;
	position = put_args(s, e, position);
	return send(s, PROBE_exec, position);
}
