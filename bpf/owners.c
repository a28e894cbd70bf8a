/*
 * Who uses a socket, so that its cookie leads to a process: who creates it, connects it, or sends to an address. An accepted
 * connection is made in a softirq, for no process. Where system calls are not recorded nobody sees its accept (LEARN_USERS).
 * But whoever calls something on a socket locks it, and what is sent while it is locked is sent by the one who has the lock, in his own
 * context: softirqs and timers leave a locked socket to him. So the first segment or acknowledgement tells who serves a connection;
 * one on which nothing was sent is told when the last descriptor of it is closed.
 */

#define HOW_CREATED 1
#define HOW_CONNECTED 2
#define HOW_SENT 3
#define HOW_USED 5
#define HOW_CLOSED 6

/*
 * The thread last recorded as a socket's owner: a busy socket is named once, not for each packet. Where calls tell of other owners
 * for a while, it is named once in each span of time without them.
 */
struct socket_owner {
	u64 thread;
	u64 span;
};
BPF_SK_STORAGE(socket_owners, struct socket_owner);

#if defined(LEARN_USERS) && defined(QUICK)
/*
 * A number of socket and owner where the socket's cookie leads, so that a busy socket is looked up without a call. Another socket may
 * have taken the place.
 */
#define KNOWN_USERS 4096
BPF_ARRAY(known_users, u64, KNOWN_USERS);

static __always_inline u64 *user_place(u64 cookie)
{
	u32 index = cookie % KNOWN_USERS;

	return known_users.lookup(&index);
}
#define USER_NUMBER(cookie, thread) (((cookie) * MIX ^ (thread) ^ this_span().number << 56) * MIX)

static __always_inline void remember_user(u64 cookie, u64 thread)
{
	u64 *place = user_place(cookie);

	if (place)
		*place = USER_NUMBER(cookie, thread);
}
#else
#define remember_user(cookie, thread) do { } while (0)
#endif

static __always_inline bool is_known(struct socket_owner *known, u64 thread)
{
	return known->thread == thread && known->span == this_span().number;
}

/* True where `thread` is the owner that was recorded last; else it will be. */
static __always_inline bool known_owner(struct bpf_sock *sk, u64 cookie, u64 thread, u8 how)
{
	struct socket_owner *known = socket_owners.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	bool same;

	if (!known) {
		count(COUNT_OWNER_MAP_FULL);
		return false;
	}
	same = how == HOW_CLOSED ? known->thread != 0 : is_known(known, thread) && how != HOW_CONNECTED;
	if (!same) {
		known->thread = thread;
		known->span = this_span().number;
	}
	remember_user(cookie, known->thread);
	return same;
}

static __always_inline void owner_record(struct owner_event *event, u64 thread)
{
	event->ts_ns = bpf_ktime_get_ns();
	event->event = EVENT_OWNER;
	event->cpu = bpf_get_smp_processor_id();
	event->pid = thread >> 32;
	event->tid = thread;
	submit(event, sizeof(*event), COUNT_RECORDED_OWNER, COUNT_OWNER_NO_SPACE);
}

#ifdef LEARN_USERS
#ifdef WITH_SYSCALLS
#define LEARNS() is_shed(SHED_CALLS) /* otherwise the calls tell */
#else
#define LEARNS() true
#endif
#define SOCKET_LISTENS 10	   /* TCP_LISTEN */
#define KERNEL_THREAD 0x00200000 /* PF_KTHREAD of include/linux/sched.h */

/* What closes for others, or sends for them as TLS in the kernel, is no user. */
static __always_inline bool kernel_thread(u64 task)
{
	u32 flags = 0;

	return !READ_KERNEL(flags, task, OFF_task_struct_flags) || (flags & KERNEL_THREAD);
}

static __always_inline u64 cgroup_number(u64 group)
{
	u64 node = 0, number = 0;

	if (READ_KERNEL(node, group, OFF_cgroup_kn) && node)
		READ_KERNEL(number, node, OFF_kernfs_node_id);
	return number;
}

static __always_inline u64 task_cgroup(u64 task)
{
	u64 set = 0, group = 0;

	if (READ_KERNEL(set, task, OFF_task_struct_cgroups) && set)
		READ_KERNEL(group, set, OFF_css_set_dfl_cgrp);
	return group;
}

#ifdef SCOPED
/* task_in_scope of scope.c where packets pass, and none of its helpers may be called. */
static __always_inline bool user_in_scope(u64 task, u32 pid, u32 tid, u64 *comm)
{
	if (scope_tasks.lookup(&pid))
		return true;
#ifdef SCOPE_UIDS
	u64 cred = 0;
	u32 uid = 0;

	if (READ_KERNEL(cred, task, OFF_task_struct_cred) && cred && READ_KERNEL(uid, cred, OFF_cred_uid) &&
	    SCOPE_UIDS(uid))
		return true;
#endif
#ifdef SCOPE_COMMS
	u8 named = SCOPE_NAMED;

	if (SCOPE_COMMS(comm)) {
		if (pid == tid && scope_tasks.update(&pid, &named))
			count(COUNT_SCOPE_FULL);
		return true;
	}
#endif
#ifdef SCOPE_CGROUPS
	u64 group = task_cgroup(task), id;

#pragma unroll
	for (int level = 0; level < SCOPE_LEVELS; level++) {
		if (!group)
			break;
		id = cgroup_number(group);
		if (scope_cgroups.lookup(&id))
			return true;
		if (!READ_KERNEL(group, group, OFF_cgroup_self_parent))
			break;
	}
#endif
	return false;
}
#endif

#ifdef QUICK
/* False where nobody has the socket of the packet locked, or it was he who was recorded last. */
static __always_inline bool maybe_new_user(struct __sk_buff *skb, u64 task)
{
	u64 sk, cookie, *place;
	u32 owned;

	LOAD_MEMBER(u64, sk, (u64)skb, sk_buff, OFF_sk_buff_sk);
	LOAD_MEMBER(u32, owned, sk, sock, OFF_sock_sk_lock_owned);
	if (!owned)
		return false;
	cookie = cookie_of(sk);
	place = user_place(cookie);
	return !place || *place != USER_NUMBER(cookie, thread_of(task));
}
#endif

/* A packet leaves: of whoever has its socket locked. A listener answers in softirqs without asking for the lock. */
static __always_inline void note_user(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk;
	struct socket_owner *known;
	struct owner_event event = {};
	u64 task = current_task(), thread, net = 0;
	u32 owned, pid, tid;
	void *tcp;

	if (!LEARNS() || !sk || sk->state == SOCKET_LISTENS)
		return;
#ifdef QUICK
	if (!maybe_new_user(skb, task))
		return;
#endif
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp)
		return;
	LOAD_KERNEL(u32, owned, tcp, OFF_sock_sk_lock_owned);
	if (!owned)
		return;
	LOAD_KERNEL(u32, pid, task, OFF_task_struct_tgid);
	LOAD_KERNEL(u32, tid, task, OFF_task_struct_pid);
	thread = (u64)pid << 32 | tid;
	event.socket_cookie = bpf_get_socket_cookie(skb);
	known = socket_owners.sk_storage_get(sk, 0, 0);
	if (known && is_known(known, thread)) {
		remember_user(event.socket_cookie, thread);
		return;
	}
	if (is_own(pid) || kernel_thread(task))
		return;
	READ_KERNEL(event.comm, task, OFF_task_struct_comm);
#ifdef SCOPED
	u64 comm[2];

	__builtin_memcpy(comm, event.comm, sizeof(comm));
	if (!user_in_scope(task, pid, tid, comm))
		return;
#endif
	sk = bpf_sk_fullsock(sk);
	if (!sk || known_owner(sk, event.socket_cookie, thread, HOW_USED))
		return;
#ifdef SCOPED
	scope_cookie(event.socket_cookie);
#endif
	LOAD_KERNEL(u64, net, tcp, OFF_sock___sk_common + OFF_sock_common_skc_net);
	if (net)
		READ_KERNEL(event.netns_cookie, net, OFF_net_net_cookie);
	event.cgroup_id = cgroup_number(task_cgroup(task));
	event.family = sk->family;
	event.socket_type = sk->type;
	event.protocol = sk->protocol;
	event.how = HOW_USED;
	owner_record(&event, thread);
}

/* Where packets are not recorded. */
int socket_sends(struct __sk_buff *skb)
{
	note_user(skb);
	return 1;
}
#else
#define note_user(skb) do { } while (0)
#endif

static __always_inline int owner(struct bpf_sock *sk, u64 cookie, u64 netns_cookie, u16 family, u8 type, u32 protocol,
				 u8 how)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct owner_event event = {};

	if (is_own(thread >> 32))
		return 1;
#ifdef SCOPE_SOCKETS
	if (!task_in_scope())
		return 1;
	mark_socket(sk);
#endif
#if defined(SCOPED) && defined(WITH_DROPS)
	scope_cookie(cookie); /* marks cannot be read where packets are dropped */
#endif
	if (known_owner(sk, cookie, thread, how))
		return 1;
	event.socket_cookie = cookie;
	event.netns_cookie = netns_cookie;
	event.cgroup_id = bpf_get_current_cgroup_id();
	event.family = family;
	event.socket_type = type;
	event.how = how;
	event.protocol = protocol;
	bpf_get_current_comm(event.comm, sizeof(event.comm));
	owner_record(&event, thread);
	return 1;
}

int socket_created(struct bpf_sock *sk)
{
	if (sk->family != FAMILY_INET && sk->family != FAMILY_INET6)
		return 1;
	return owner(sk, bpf_get_socket_cookie(sk), bpf_get_netns_cookie(sk), sk->family, sk->type, sk->protocol,
		     HOW_CREATED);
}

#ifdef LEARN_USERS
int socket_closed(struct bpf_sock *sk)
{
	if (!LEARNS() || (sk->family != FAMILY_INET && sk->family != FAMILY_INET6) ||
	    kernel_thread(bpf_get_current_task()))
		return 1;
	return owner(sk, bpf_get_socket_cookie(sk), bpf_get_netns_cookie(sk), sk->family, sk->type, sk->protocol,
		     HOW_CLOSED);
}
#endif

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
