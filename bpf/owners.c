/* Who created, connected or sent on a socket, so that its cookie leads to a process. */

#define HOW_CREATED 1
#define HOW_CONNECTED 2
#define HOW_SENT 3

/* The thread last recorded as a socket's owner: a busy datagram socket is named once, not for each datagram. */
BPF_TABLE("lru_hash", u64, u64, owner_named, 65536);

static __always_inline int owner(struct bpf_sock *sk, u64 cookie, u64 netns_cookie, u16 family, u8 type, u32 protocol,
				 u8 how)
{
	u64 thread = bpf_get_current_pid_tgid();
	u64 *named = owner_named.lookup(&cookie);
	struct owner_event event = {};

	if (is_own(thread >> 32))
		return 1;
#ifdef SCOPE_SOCKETS
	if (!task_in_scope())
		return 1;
	if (sk)
		mark_socket(sk);
#endif
#if defined(SCOPED) && defined(WITH_DROPS)
	scope_cookie(cookie); /* marks cannot be read where packets are dropped */
#endif
	if (named && *named == thread && how != HOW_CONNECTED)
		return 1;
	if (owner_named.update(&cookie, &thread))
		count(COUNT_OWNER_MAP_FULL);
	FILL_HEADER(&event, EVENT_OWNER, bpf_ktime_get_ns(), 0);
	event.socket_cookie = cookie;
	event.netns_cookie = netns_cookie;
	event.cgroup_id = bpf_get_current_cgroup_id();
	event.pid = thread >> 32;
	event.tid = thread;
	event.family = family;
	event.socket_type = type;
	event.how = how;
	event.protocol = protocol;
	bpf_get_current_comm(event.comm, sizeof(event.comm));
	submit(&event, sizeof(event), COUNT_RECORDED_OWNER, COUNT_OWNER_NO_SPACE);
	return 1;
}

int socket_created(struct bpf_sock *sk)
{
	if (sk->family != FAMILY_INET && sk->family != FAMILY_INET6)
		return 1;
	return owner(sk, bpf_get_socket_cookie(sk), bpf_get_netns_cookie(sk), sk->family, sk->type, sk->protocol,
		     HOW_CREATED);
}

#define ADDRESS_HOOK(name, how)                                                \
	int name(struct bpf_sock_addr *ctx)                                    \
	{                                                                      \
		return owner(ctx->sk, bpf_get_socket_cookie(ctx), bpf_get_netns_cookie(ctx),  \
			     ctx->family, ctx->type, ctx->protocol, how);      \
	}

ADDRESS_HOOK(socket_connect4, HOW_CONNECTED)
ADDRESS_HOOK(socket_connect6, HOW_CONNECTED)
ADDRESS_HOOK(socket_sendmsg4, HOW_SENT)
ADDRESS_HOOK(socket_sendmsg6, HOW_SENT)
