/*
 * Plaintext of TLS: what programs give to and get from OpenSSL. Uprobes at the entry of its functions note the arguments,
 * those at the return know how much was moved and copy it. Which socket carries a session is what the same thread calls on
 * sockets inside of such a function; where TCP stands then ties the bytes to segments. Where the program moves the ciphertext
 * itself (memory BIOs), it is the socket from which the thread last received something that begins as a TLS record.
 */

#define TLS_HANDSHAKE 0
#define TLS_READ 1
#define TLS_WRITE 2
#define TLS_FILE 3 /* SSL_sendfile: the bytes are never in the program's memory */
#define TLS_PIECE 16384 /* the most that a record of TLS carries (RFC 8446 section 5.1) */
#define TLS_SLOTS 4
#define TLS_NESTED 2 /* TLS inside of TLS, as through a proxy */

#define TLS_FLAG_BEGAN 1
#define TLS_FLAG_PLACED 2
#define TLS_FLAG_LAST 4
#define TLS_FLAG_CUT 8

#define PROTOCOL_TCP 6

struct tls_socket {
	u64 sock;
	u64 cookie;
};

struct tls_key {
	u64 ssl;
	u64 pid;
};

struct tls_session {
	u64 number;
	struct tls_socket socket;
	u64 moved[3]; /* by TLS_READ, TLS_WRITE */
	u32 unsent_seq; /* where the ciphertext of a write began that did not succeed yet */
	u8 unsent;
	u8 began;
	u8 spare[2];
};
BPF_TABLE("lru_hash", struct tls_key, struct tls_session, tls_sessions, 65536);

struct tls_call {
	u64 ssl;
	u64 buffer;
	u64 moved_at; /* where the functions _ex leave how much they moved */
	u64 stack;
	u64 began_ns;
	struct tls_socket socket;
	u32 first_seq;
	u8 sent;
	u8 what;
	u8 open;
	u8 spare;
};

/* A thread that has called OpenSSL. */
struct tls_thread {
	struct tls_call calls[TLS_NESTED];
	struct tls_socket received; /* last, and it began as a record of TLS */
};
BPF_TABLE("lru_hash", u64, struct tls_thread, tls_threads, 65536);

struct tls_slot {
	u64 busy;
	struct tls_event event;
	u8 data[TLS_PIECE];
};
BPF_ARRAY(tls_slots, struct tls_slot, PROCESSORS * TLS_SLOTS);

static __always_inline void count_bytes(int which, u64 bytes)
{
	u64 *value = counters.lookup(&which);

	if (value)
		__sync_fetch_and_add(value, bytes);
}

#ifdef HAVE_TLS_BTF
/* The socket behind a descriptor of the current task, where it is one of TCP. */
static __always_inline bool tls_socket_of(u32 fd, struct tls_socket *found)
{
	u64 task = bpf_get_current_task(), files = 0, table = 0, array = 0, file = 0, inode = 0, private = 0, sock = 0;
	u32 limit = 0;
	u16 mode = 0, protocol = 0;

	if (!READ_KERNEL(files, task, OFF_task_struct_files) || !files ||
	    !READ_KERNEL(table, files, OFF_files_struct_fdt) || !table ||
	    !READ_KERNEL(limit, table, OFF_fdtable_max_fds) || fd >= limit ||
	    !READ_KERNEL(array, table, OFF_fdtable_fd) || !READ_KERNEL(file, array, (u64)fd * 8) || !file ||
	    !READ_KERNEL(inode, file, OFF_file_f_inode) || !inode || !READ_KERNEL(mode, inode, OFF_inode_i_mode) ||
	    (mode & MODE_TYPE) != MODE_SOCKET || !READ_KERNEL(private, file, OFF_file_private_data) || !private ||
	    !READ_KERNEL(sock, private, OFF_socket_sk) || !sock ||
	    !READ_KERNEL(protocol, sock, OFF_sock_sk_protocol) || (protocol & 0xff) != PROTOCOL_TCP)
		return false;
	found->sock = sock;
	READ_KERNEL(found->cookie, sock, OFF_sock___sk_common + OFF_sock_common_skc_cookie);
	return true;
}

/* Where TCP stands: what was written to the socket, or read from it. False when the socket is another one by now. */
static __always_inline bool tls_place(struct tls_socket *socket, u8 what, u32 *seq)
{
	u64 cookie = 0;

	if (!socket->sock ||
	    !READ_KERNEL(cookie, socket->sock, OFF_sock___sk_common + OFF_sock_common_skc_cookie) ||
	    cookie != socket->cookie)
		return false;
	return what == TLS_READ ? READ_KERNEL(*seq, socket->sock, OFF_tcp_sock_copied_seq) :
				  READ_KERNEL(*seq, socket->sock, OFF_tcp_sock_write_seq);
}
#else
#define tls_socket_of(fd, found) false
#define tls_place(socket, what, seq) false
#endif

static __always_inline struct tls_session *tls_session(u64 ssl, bool began)
{
	struct tls_key key = {.ssl = ssl, .pid = bpf_get_current_pid_tgid() >> 32};
	struct tls_session *session = began ? NULL : tls_sessions.lookup(&key), fresh = {};

	if (session)
		return session;
	fresh.number = bpf_ktime_get_ns();
	fresh.began = began;
	tls_sessions.update(&key, &fresh);
	return tls_sessions.lookup(&key);
}

static __always_inline int tls_enter(struct registers *ctx, u8 what, bool tells_size)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct tls_thread *state, fresh = {};
	struct tls_call *call = NULL;

	if (!tls_ours())
		return 0;
	state = tls_threads.lookup(&thread);
	if (!state) {
		tls_threads.update(&thread, &fresh);
		state = tls_threads.lookup(&thread);
		if (!state)
			return 0;
	}
	/* What lies deeper in the stack than we are has returned without a probe, as by longjmp. */
#pragma unroll
	for (int i = TLS_NESTED - 1; i >= 0; i--)
		if (!state->calls[i].open || state->calls[i].stack <= ctx->sp)
			call = &state->calls[i];
	if (!call)
		return 0;
	call->ssl = ctx->di;
	call->buffer = ctx->si;
	call->moved_at = tells_size ? ctx->cx : 0;
	call->stack = ctx->sp;
	call->began_ns = bpf_ktime_get_ns();
	call->socket.sock = call->socket.cookie = 0;
	call->sent = 0;
	call->what = what;
	call->open = 1;
	return 0;
}

static __always_inline struct tls_slot *tls_slot(void)
{
	u32 first = bpf_get_smp_processor_id() * TLS_SLOTS;

#pragma unroll
	for (u32 i = 0; i < TLS_SLOTS; i++) {
		u32 index = first + i;
		struct tls_slot *slot = tls_slots.lookup(&index);

		if (!slot)
			return NULL;
		if (TAKE(&slot->busy))
			return slot;
		LEAVE(&slot->busy);
	}
	return NULL;
}

static __always_inline void tls_record(struct tls_slot *slot, u64 buffer, u64 moved)
{
	u64 left = moved > TLS_BYTES ? TLS_BYTES : moved, bytes;
	int outcome;

	if (left < moved) {
		slot->event.flags |= TLS_FLAG_CUT;
		count_bytes(COUNT_TLS_CUT_BYTES, moved - left);
	}
	slot->event.at_bytes = 0;
#pragma clang loop unroll(disable)
	for (int i = 0; i < (TLS_BYTES + TLS_PIECE - 1) / TLS_PIECE; i++) {
		bytes = left;
		/* What the verifier knows of these would make each turn another case for it. */
		OPAQUE(bytes);
		if (bytes > TLS_PIECE)
			bytes = TLS_PIECE;
		if (bytes == 0)
			break;
		OPAQUE(left);
		left -= bytes;
		if (left == 0)
			slot->event.flags |= TLS_FLAG_LAST;
		slot->event.data_bytes = bytes;
		outcome = COUNT_TLS_READ_FAILED;
		if (bpf_probe_read_user(slot->data, bytes, (void *)buffer) == 0)
			outcome = events.ringbuf_output(&slot->event, sizeof(slot->event) + bytes, RB_NO_WAKEUP) ?
					  COUNT_TLS_NO_SPACE :
					  COUNT_RECORDED_TLS;
		OPAQUE(outcome);
		count(outcome);
		slot->event.at_bytes += bytes;
		slot->event.position += bytes;
		buffer += bytes;
		OPAQUE(buffer);
	}
}

static __always_inline int tls_leave(struct registers *ctx)
{
	u64 thread = bpf_get_current_pid_tgid(), now = bpf_ktime_get_ns(), moved = 0, position;
	struct tls_thread *state = tls_threads.lookup(&thread);
	struct tls_session *session;
	struct tls_call *call = NULL;
	struct tls_slot *slot;
	u32 first = 0, next = 0;
	bool placed, sent;
	u8 what;

	if (!state)
		return 0;
	/* A return is found with the stack one address shorter than at the entry. */
#pragma unroll
	for (int i = 0; i < TLS_NESTED; i++)
		if (state->calls[i].open && state->calls[i].stack + 8 == ctx->sp)
			call = &state->calls[i];
	if (!call)
		return 0;
	call->open = 0;
	what = call->what;
	if (call->moved_at) {
		if ((s32)ctx->ax == 1 && bpf_probe_read_user(&moved, sizeof(moved), (void *)call->moved_at))
			moved = 0;
	} else if (what == TLS_FILE) {
		moved = (s64)ctx->ax > 0 ? ctx->ax : 0;
	} else if ((s32)ctx->ax > 0) {
		moved = (u32)ctx->ax;
	}
	session = tls_session(call->ssl, false);
	if (!session)
		return 0;
	if (call->socket.sock)
		session->socket = call->socket;
	else if (!session->socket.sock && state->received.sock)
		session->socket = state->received;
	if (what == TLS_HANDSHAKE)
		return 0;
	sent = call->sent;
	first = call->first_seq;
	if (what == TLS_WRITE && session->unsent) {
		sent = true;
		first = session->unsent_seq;
	}
	if (moved == 0) {
		if (what == TLS_WRITE && sent) {
			session->unsent = 1;
			session->unsent_seq = first;
		}
		return 0;
	}
	session->unsent = 0;
	if (what == TLS_FILE) {
		session->moved[TLS_WRITE] += moved;
		count_bytes(COUNT_TLS_SENDFILE_BYTES, moved);
		return 0;
	}
	placed = tls_place(&session->socket, what, &next);
	if (what == TLS_WRITE && !sent)
		first = next; /* the program sends it from here on */
	position = what == TLS_READ ? session->moved[TLS_READ] : session->moved[TLS_WRITE];
	if (what == TLS_READ)
		session->moved[TLS_READ] += moved;
	else
		session->moved[TLS_WRITE] += moved;
	if (is_shed(SHED_PLAINTEXT)) {
		count_bytes(COUNT_TLS_SHED_BYTES, moved);
		return 0;
	}
	add_bytes(SEEN_PLAINTEXT, moved > TLS_BYTES ? TLS_BYTES : moved);
	slot = tls_slot();
	if (!slot) {
		count(COUNT_TLS_NO_SCRATCH);
		return 0;
	}
	FILL_HEADER(&slot->event, EVENT_TLS, call->began_ns,
		    (session->began ? TLS_FLAG_BEGAN : 0) | (placed ? TLS_FLAG_PLACED : 0));
	slot->event.session = session->number;
	slot->event.socket_cookie = session->socket.cookie;
	slot->event.position = position;
	slot->event.duration_ns = now - call->began_ns;
	slot->event.moved_bytes = moved;
	slot->event.pid = thread >> 32;
	slot->event.tid = thread;
	slot->event.first_seq = first;
	slot->event.next_seq = next;
	slot->event.what = what;
	bpf_get_current_comm(slot->event.comm, sizeof(slot->event.comm));
	tls_record(slot, call->buffer, moved);
	LEAVE(&slot->busy);
	return 0;
}

#define TLS_ENTRY(name, what, tells_size)                                      \
	int name(struct registers *ctx)                                        \
	{                                                                      \
		return tls_enter(ctx, what, tells_size);                       \
	}

TLS_ENTRY(tls_read, TLS_READ, false)
TLS_ENTRY(tls_read_ex, TLS_READ, true)
TLS_ENTRY(tls_write, TLS_WRITE, false)
TLS_ENTRY(tls_write_ex, TLS_WRITE, true)
TLS_ENTRY(tls_sendfile, TLS_FILE, false)
TLS_ENTRY(tls_handshake, TLS_HANDSHAKE, false)

MEASURED(tls_return, COST_TLS, struct registers, tls_leave(ctx))

int tls_made(struct registers *ctx)
{
	if (tls_ours() && ctx->ax)
		tls_session(ctx->ax, true);
	return 0;
}

int tls_freed(struct registers *ctx)
{
	struct tls_key key = {.ssl = ctx->di, .pid = bpf_get_current_pid_tgid() >> 32};

	tls_sessions.delete(&key);
	return 0;
}

/* What a thread that uses OpenSSL does to sockets. */
static __always_inline int socket_call(struct bpf_raw_tracepoint_args *ctx)
{
	u64 thread = bpf_get_current_pid_tgid();
	struct tls_thread *state = tls_threads.lookup(&thread);
	struct tls_socket found = {};
	struct syscall_spec *spec;
	struct registers regs;
	s64 ret = ctx->args[1];
	bool sends, receives, inside = false;
	u32 nr, seq = 0;
	u8 head[3] = {};

	if (!state || bpf_probe_read_kernel(&regs, sizeof(regs), (void *)ctx->args[0]))
		return 0;
	nr = regs.orig_ax;
	/* write, writev, sendto, sendmsg; read, readv, recvfrom, recvmsg */
	sends = nr == 1 || nr == 20 || nr == 44 || nr == 46;
	receives = nr == 0 || nr == 19 || nr == 45 || nr == 47;
	if ((!sends && !receives) || regs.cs == CODE_SEGMENT_32BIT || ret == -EBADF)
		return 0;
#pragma unroll
	for (int i = 0; i < TLS_NESTED; i++)
		inside = inside || state->calls[i].open;
	if (!inside && (sends || ret < (s64)sizeof(head)))
		return 0;
	if (!tls_socket_of(regs.di, &found))
		return 0;
	if (!inside) {
		if (nr == 19 || nr == 47 || bpf_probe_read_user(head, sizeof(head), (void *)regs.si))
			return 0;
		/* Content types of records, and the version that all of them have (RFC 8446 section 5.1). */
		if (head[0] >= 20 && head[0] <= 23 && head[1] == 3)
			state->received = found;
		return 0;
	}
	if (sends && !tls_place(&found, TLS_WRITE, &seq))
		return 0;
#pragma unroll
	for (int i = 0; i < TLS_NESTED; i++) {
		struct tls_call *call = &state->calls[i];

		if (!call->open)
			continue;
		call->socket = found;
		if (sends && !call->sent) {
			call->first_seq = ret > 0 ? seq - (u32)ret : seq;
			call->sent = 1;
		}
	}
	return 0;
}

MEASURED(tls_socket_call, COST_TLS_CALLS, struct bpf_raw_tracepoint_args, socket_call(ctx))
