/*
 * Who belongs to the recording, where it was asked for some only (SCOPED). Processes are decided where they run; sockets
 * carry a mark of their own, which the kernel copies to the connections that a listener accepts.
 */

#define SCOPE_TREE 1  /* chosen by number, or a descendant of such: so are its children */
#define SCOPE_NAMED 2 /* chosen by its name */

/* Processes in scope that are known by number; the others are decided by user and cgroup each time. */
BPF_HASH(scope_tasks, u32, u8, 65536);

#ifdef SCOPE_CGROUPS
#define SCOPE_LEVELS 16
#define SCOPE_IN 1
#define SCOPE_OUT 2
/* Chosen cgroups, by the recorder; and what was found out about every cgroup met, by walking up from it. */
BPF_HASH(scope_cgroups, u64, u8, 16384);
BPF_TABLE("lru_hash", u64, u8, scope_met, 16384);

static __always_inline bool cgroup_in_scope(void)
{
	u64 id = bpf_get_current_cgroup_id(), above;
	u8 *met = scope_met.lookup(&id), found = SCOPE_OUT;

	if (met)
		return *met == SCOPE_IN;
#pragma unroll
	for (int level = 0; level < SCOPE_LEVELS; level++) {
		above = bpf_get_current_ancestor_cgroup_id(level);
		if (!above)
			break;
		if (scope_cgroups.lookup(&above)) {
			found = SCOPE_IN;
			break;
		}
	}
	scope_met.update(&id, &found);
	return found == SCOPE_IN;
}
#endif

static __always_inline bool task_in_scope(void)
{
	u64 thread = bpf_get_current_pid_tgid();
	u32 pid = thread >> 32;

	if (scope_tasks.lookup(&pid))
		return true;
#ifdef SCOPE_UIDS
	u32 uid = bpf_get_current_uid_gid();

	if (SCOPE_UIDS(uid))
		return true;
#endif
#ifdef SCOPE_COMMS
	u64 comm[2] = {};
	u8 named = SCOPE_NAMED;

	bpf_get_current_comm(comm, sizeof(comm));
	if (SCOPE_COMMS(comm)) {
		/* A process is named by its first thread; the others belong to it under whatever name. */
		if (pid == (u32)thread && scope_tasks.update(&pid, &named))
			count(COUNT_SCOPE_FULL);
		return true;
	}
#endif
#ifdef SCOPE_CGROUPS
	return cgroup_in_scope();
#else
	return false;
#endif
}

/* A forked process is in scope for the reasons of its parent, which runs this. */
static __always_inline void scope_fork(u32 child)
{
	u32 parent = bpf_get_current_pid_tgid() >> 32;
	u8 *state = scope_tasks.lookup(&parent), copy;

	if (!state)
		return;
	copy = *state;
	if (scope_tasks.update(&child, &copy))
		count(COUNT_SCOPE_FULL);
}

/* A program that was executed has a name of its own. */
static __always_inline void scope_exec(void)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	u8 *state = scope_tasks.lookup(&pid);

	if (state && !(*state & SCOPE_TREE))
		scope_tasks.delete(&pid);
}

static __always_inline void scope_exit(void)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;

	scope_tasks.delete(&pid);
}

/*
 * Sockets older than the recording, or made outside the scope and used inside it, by cookie. The first packet on one turns
 * this into a mark, so an entry may go when it was not used for long.
 */
BPF_TABLE("lru_hash", u64, u8, scope_cookies, 65536);

static __always_inline void scope_cookie(u64 cookie)
{
	u8 one = 1;

	if (cookie && !scope_cookies.lookup(&cookie))
		scope_cookies.update(&cookie, &one);
}

#ifdef SCOPE_SOCKETS
struct scope_mark {
	u32 in;
};

/* BPF_F_CLONE: what accept returns has the mark of its listener, from the end of the handshake on. */
struct scope_marks_table {
	int key;
	struct scope_mark leaf;
	void *(*sk_storage_get)(void *, void *, int);
	int (*sk_storage_delete)(void *);
	u32 flags;
};
__attribute__((section("maps/sk_storage"))) struct scope_marks_table scope_marks = {
	.flags = BPF_F_NO_PREALLOC | BPF_F_CLONE,
};
BPF_ANNOTATE_KV_PAIR(scope_marks, int, struct scope_mark);

static __always_inline void mark_socket(struct bpf_sock *sk)
{
	struct scope_mark mark = {.in = 1};

	if (!scope_marks.sk_storage_get(sk, &mark, BPF_SK_STORAGE_GET_F_CREATE))
		count(COUNT_SCOPE_FULL);
}

static __always_inline bool socket_in_scope(struct bpf_sock *sk, u64 cookie)
{
	if (scope_marks.sk_storage_get(sk, 0, 0))
		return true;
	if (!scope_cookies.lookup(&cookie))
		return false;
	mark_socket(sk);
	return true;
}
#endif
