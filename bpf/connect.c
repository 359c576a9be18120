/* connect: connect(2) returned on an IPv4 or IPv6 socket, refused or not. Hook: tracepoint sys_exit_connect alone: a
 * call that seccomp refuses never passes sys_enter. The arguments come from the registers. Twin: sensor/probes/connect.py.
 */
#include "common.h"

/* /sys/kernel/tracing/events/syscalls/sys_exit_connect/format; the same on every kernel since 4.7. */
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

static __always_inline void map_v4(u8 *to, u32 address)
{
	__builtin_memset(to, 0, 10);
	to[10] = to[11] = 0xff;
	__builtin_memcpy(to + 12, &address, 4);
}

/* What the kernel itself connected to: another thread may have rewritten the caller's sockaddr by now. */
static __always_inline void put_from_sock(struct connect *c, u64 sock)
{
	u32 v4 = 0;

	READ(c->source_port, sock, sock_common, skc_num);
	READ(c->destination_port, sock, sock_common, skc_dport);
	if (c->family == AF_INET) {
		READ(v4, sock, sock_common, skc_rcv_saddr);
		map_v4(c->source, v4);
		READ(v4, sock, sock_common, skc_daddr);
		map_v4(c->destination, v4);
	} else {
		READ(c->source, sock, sock_common, skc_v6_rcv_saddr);
		READ(c->destination, sock, sock_common, skc_v6_daddr);
	}
}

static __always_inline bool is_zero(struct connect *c)
{
	u64 *d = (u64 *)c->destination;

	return !d[0] && (!d[1] || d[1] == 0xffff0000);
}

static __always_inline void put_from_caller(struct connect *c, struct address *a)
{
	c->destination_port = a->port;
	if (a->family == AF_INET)
		map_v4(c->destination, a->v4_or_flow);
	else
		__builtin_memcpy(c->destination, a->v6, 16);
}

int tocsin_connect(struct sys_exit *ctx)
{
	struct pt_regs *regs = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
	u64 fd = 0, caller = 0, file, sock;
	struct address a = {};
	struct scratch *s;
	struct connect *c;
	u32 position;

#if defined(__x86_64__)
	bpf_probe_read_kernel(&fd, 8, &regs->di);
	bpf_probe_read_kernel(&caller, 8, &regs->si);
#else
	bpf_probe_read_kernel(&fd, 8, &regs->orig_x0);
	bpf_probe_read_kernel(&caller, 8, &regs->regs[1]);
#endif
	file = file_of((u32)fd);
	if (!file || file_type(file) != S_IFSOCK)
		return 0;
	sock = sock_of(file);
	s = begin(PROBE_connect);
	if (!s)
		return 0;
	c = (struct connect *)s->body;
	__builtin_memset(c, 0, sizeof(*c));
	c->result = ctx->result;
	READ(c->family, sock, sock_common, skc_family);
	READ(c->protocol, sock, sock, sk_protocol);
	if (c->family != AF_INET && c->family != AF_INET6)
		return 0;
	put_from_sock(c, sock);
	if (c->result && c->result != -EINPROGRESS) {
		/* A sockaddr_in has only 16 bytes, which may end its page. */
		if (bpf_probe_read_user(&a, sizeof(a), (void *)caller))
			bpf_probe_read_user(&a, 16, (void *)caller);
		if (a.family != AF_INET && a.family != AF_INET6)
			return 0;
		put_from_caller(c, &a);
	} else if (!c->destination_port && is_zero(c)) {
		return 0; /* AF_UNSPEC: the socket was disconnected */
	}
	position = put_executable(s, sizeof(struct connect), &c->executable_cut);
	c->executable_size = position - sizeof(struct connect);
	return send(s, PROBE_connect, position);
}
