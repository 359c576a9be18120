/* connect: connect(2) returned on an IPv4 or IPv6 socket, refused or not, or a SYN went out without one. Twin:
 * sensor/probes/connect.py.
 *
 * Three hooks, because the caller owns the descriptor and the address, and may change both while the call is under way.
 * sys_enter_connect notes the socket; inet_sock_set_state notes where the kernel sends the SYN; sys_exit_connect reports
 * what was noted, with the result. A call that seccomp refuses never passes sys_enter: there the registers say what was
 * wanted. A SYN that no connect(2) is for (a Fast Open send, io_uring) is reported as it goes.
 */
#include "common.h"

/* /sys/kernel/tracing/events/syscalls/sys_{enter,exit}_connect/format; the same on every kernel since 4.7. */
struct sys_enter {
	u64 common;
	long number;
	u64 args[6];
};

struct sys_exit {
	u64 common;
	long number;
	long result;
};

struct connect {
	s32 result;
	u16 family;
	u16 protocol;
	u16 source_port;      /* host order */
	u16 destination_port; /* network order */
	u16 executable_size;  /* the parts of the executable's path follow */
	u16 executable_cut;
	u8 source[16]; /* IPv4 as ::ffff:a.b.c.d */
	u8 destination[16];
};
_Static_assert(sizeof(struct connect) == SIZE_connect, "sensor/probes/connect.py declares another record");

/* struct sockaddr_in and sockaddr_in6 begin alike. */
struct address {
	u16 family;
	u16 port;
	u32 v4_or_flow;
	u8 v6[16];
};

#define EINPROGRESS 115
#define IPPROTO_TCP 6
#define TCP_SYN_SENT 2
#define TCP_CLOSE 7

/* A connect under way. The destination is there when the SYN is. */
struct attempt {
	u64 sock;
	u16 family;
	u16 protocol;
	u16 destination_port; /* network order */
	u16 sent;
	u8 destination[16];
};

/* By tid. No LRU: whoever blocks in many connects must not push out those of others, or his own. When it is full, a SYN
 * is reported as it goes, and once more at the end if the descriptor is still the socket.
 */
BPF_HASH(under_way, u32, struct attempt, 8192);

static __always_inline void map_v4(u8 *to, u32 address)
{
	__builtin_memset(to, 0, 10);
	to[10] = to[11] = 0xff;
	__builtin_memcpy(to + 12, &address, 4);
}

/* Returns whether it is an IPv4 or IPv6 socket. */
static __always_inline bool note_sock(struct attempt *a, u64 sock)
{
	a->sock = sock;
	READ(a->family, sock, sock_common, skc_family);
	READ(a->protocol, sock, sock, sk_protocol);
	return a->family == AF_INET || a->family == AF_INET6;
}

static __always_inline bool note_descriptor(struct attempt *a, u32 fd)
{
	u64 file = file_of(fd);

	return file && file_type(file) == S_IFSOCK && note_sock(a, sock_of(file));
}

/* Where the socket is connected to; all zero when it is not. */
static __always_inline void note_destination(struct attempt *a)
{
	u32 v4 = 0;

	READ(a->destination_port, a->sock, sock_common, skc_dport);
	if (a->family == AF_INET) {
		READ(v4, a->sock, sock_common, skc_daddr);
		map_v4(a->destination, v4);
	} else {
		READ(a->destination, a->sock, sock_common, skc_v6_daddr);
	}
}

static __always_inline bool is_nowhere(struct attempt *a)
{
	u64 *d = (u64 *)a->destination;

	return !a->destination_port && !d[0] && (!d[1] || d[1] == 0xffff0000);
}

/* Where the caller wanted to. Returns whether it is an address to connect to. */
static __always_inline bool note_wanted(struct attempt *a, void *caller)
{
	struct address wanted = {};

	/* A sockaddr_in has only 16 bytes, which may end its page. */
	if (bpf_probe_read_user(&wanted, sizeof(wanted), caller))
		bpf_probe_read_user(&wanted, 16, caller);
	a->destination_port = wanted.port;
	if (wanted.family == AF_INET)
		map_v4(a->destination, wanted.v4_or_flow);
	else
		__builtin_memcpy(a->destination, wanted.v6, 16);
	return wanted.family == AF_INET || wanted.family == AF_INET6;
}

static __always_inline int report(struct attempt *a, s32 result)
{
	struct scratch *s = begin(PROBE_connect);
	struct connect *c;
	u32 position, v4 = 0;

	if (!s)
		return 0;
	c = (struct connect *)s->body;
	__builtin_memset(c, 0, sizeof(*c));
	c->result = result;
	c->family = a->family;
	c->protocol = a->protocol;
	c->destination_port = a->destination_port;
	__builtin_memcpy(c->destination, a->destination, 16);
	READ(c->source_port, a->sock, sock_common, skc_num);
	if (a->family == AF_INET) {
		READ(v4, a->sock, sock_common, skc_rcv_saddr);
		map_v4(c->source, v4);
	} else {
		READ(c->source, a->sock, sock_common, skc_v6_rcv_saddr);
	}
	position = put_executable(s, sizeof(struct connect), &c->executable_cut);
	c->executable_size = position - sizeof(struct connect);
	return send(s, PROBE_connect, position);
}

int tocsin_connect_begins(struct sys_enter *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct attempt a = {};

	if (note_descriptor(&a, ctx->args[0]))
		under_way.update(&tid, &a);
	return 0;
}

/* For every change of a TCP socket's state, so the two numbers come first. Only this one change matters; it always
 * happens in the process that asked for it. Multipath TCP's own socket changes too, but its TCP socket is what sends.
 */
int tocsin_connect_sends(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct attempt a = {}, *known;

	if ((u32)ctx->args[1] != TCP_CLOSE || (u32)ctx->args[2] != TCP_SYN_SENT)
		return 0;
	if (!note_sock(&a, ctx->args[0]) || a.protocol != IPPROTO_TCP)
		return 0;
	note_destination(&a);
	a.sent = 1;
	known = under_way.lookup(&tid);
	if (!known)
		return report(&a, -EINPROGRESS);
	*known = a;
	return 0;
}

int tocsin_connect(struct sys_exit *ctx)
{
	struct pt_regs *regs = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	bool failed = ctx->result && ctx->result != -EINPROGRESS;
	u32 tid = bpf_get_current_pid_tgid();
	struct attempt a = {}, *known = under_way.lookup(&tid);
	u64 fd = 0, caller = 0;

#if defined(__x86_64__)
	bpf_probe_read_kernel(&fd, 8, &regs->di);
	bpf_probe_read_kernel(&caller, 8, &regs->si);
#else
	bpf_probe_read_kernel(&fd, 8, &regs->orig_x0);
	bpf_probe_read_kernel(&caller, 8, &regs->regs[1]);
#endif
	if (known) {
		a = *known;
		under_way.delete(&tid);
	} else if (!note_descriptor(&a, fd)) {
		return 0;
	}
	if (failed && !a.sent) {
		if (!note_wanted(&a, (void *)caller))
			return 0;
	} else if (!a.sent) {
		note_destination(&a);
		if (is_nowhere(&a))
			return 0; /* AF_UNSPEC: the socket was disconnected */
	}
	return report(&a, ctx->result);
}
