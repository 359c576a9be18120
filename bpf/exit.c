/* exit: a process (its last thread) ended. Hook: raw tracepoint sched_process_exit, which fires for every thread.
 * Twin: sensor/probes/exit.py.
 */
#include "common.h"

#define SIGNAL_GROUP_EXIT 4 /* linux/sched/signal.h */

struct exit {
	u32 status; /* as wait(2) gives it */
	u32 unused;
};
_Static_assert(sizeof(struct exit) == SIZE_exit, "sensor/probes/exit.py declares another record");

struct process {
	u64 start_ns;
	u64 pid;
};

/* Two last threads may both see no thread alive: the first to enter the process here reports it. */
BPF_TABLE("lru_hash", struct process, u8, ended, 4096);

#define EEXIST 17

int tocsin_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = bpf_get_current_task(), signal = 0, leader = 0;
	u32 alive = 0, flags = 0;
	struct process process = {};
	u8 yes = 1;
	struct scratch *s;
	struct exit *e;

	READ(signal, task, task_struct, signal);
	READ(alive, signal, signal_struct, live);
	if (alive)
		return 0;
	s = begin(PROBE_exit);
	if (!s)
		return 0;
	process.start_ns = s->head.start_ns;
	process.pid = s->head.pid;
	if (ended.insert(&process, &yes) == -EEXIST)
		return 0;
	e = (struct exit *)s->body;
	e->unused = 0;
	READ(flags, signal, signal_struct, flags);
	READ(leader, task, task_struct, group_leader);
	if (flags & SIGNAL_GROUP_EXIT)
		READ(e->status, signal, signal_struct, group_exit_code);
	else
		READ(e->status, leader, task_struct, exit_code);
	return send(s, PROBE_exit, sizeof(struct exit));
}
