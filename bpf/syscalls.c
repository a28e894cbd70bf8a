/*
 * System calls: one record each, made when the call returns. The raw tracepoints see every call of every process; what a
 * call's arguments mean, and whether it is wanted, stands in `syscall_specs`, which the loader fills from schemas/syscalls.
 */

#define NONE 255
#define NO_FDS (~0ULL)
#define FLAG_NO_START 8
#define FLAG_NO_RETURN 16

#ifdef SCOPED
#define OUT_OF_SCOPE() (!task_in_scope())
#else
#define OUT_OF_SCOPE() false
#endif

#define DATA_BUFFER 1
#define DATA_IOVEC 2
#define DATA_MESSAGE 3
#define DATA_MESSAGES 4

/* Which argument is what, or NONE. Order and meaning are shared with record/specs.py. */
struct syscall_spec {
	u8 wanted; /* or SHED_CALL */
	u8 args;
	u8 fd;
	u8 path;
	u8 path2;
	u8 address;
	u8 address_out; /* length behind a pointer, filled in on return */
	u8 data;
	u8 data_kind;
	u8 returns_fd;
	u8 fd_at_entry; /* close: the file is gone on return */
	u8 no_return;	/* exit: recorded on entry */
	u8 child_returns; /* clone: the new task returns 0 from a call it did not make */
	u8 manages;	/* keeps a descriptor rather than uses it: close, dup, fcntl */
	u8 unfiltered;	/* recorded whatever the filter says, because others are named by it */
	u8 fds;		/* two descriptors that the call fills in: pipe, socketpair */
};
BPF_ARRAY(syscall_specs, struct syscall_spec, 512);

/*
 * When each thread entered its open call; indexed by thread id, so neither a full map nor a lock is possible. The number of the span
 * (limits.c) stands for no call, and spares the exit of an unwanted one all further work; whatever is older than the span, as zero,
 * means that the thread has not been seen entering anything.
 */
BPF_ARRAY(syscall_starts, u64, THREAD_IDS);

BPF_HASH(closing_files, u32, struct file_info, 8192);

#if defined(CALL_TEST) || defined(TRIGGER_CALLS)
static __always_inline bool call_wanted(struct syscall_spec *spec, u64 thread, u32 nr, s64 ret, u64 start, u64 now)
{
	struct call_facts facts = {.ret = ret, .pid = thread >> 32, .tid = thread, .nr = nr}, *c = &facts;

#ifndef TRIGGER_CALLS
	if (spec->unfiltered)
		return true;
#endif
	facts.returned = facts.timed = !spec->no_return;
	if (start)
		facts.duration_ns = now - start;
	else
		facts.timed = false;
	bpf_get_current_comm(facts.comm, sizeof(facts.comm));
#ifdef CALL_TEST
	if (!spec->unfiltered && !(CALL_TEST))
		return false;
#endif
#ifdef TRIGGER_CALLS
	TRIGGER_CALLS(c);
#endif
	return true;
}
#endif

static __always_inline void syscall_record(struct syscall_scratch *scratch, struct syscall_spec *spec, u64 task, u32 nr,
					   s64 ret, u64 start, u64 now)
{
	struct syscall_event *event = &scratch->event;
	u64 thread = thread_of(task);
	u32 tid = thread, at, got;
	struct file_info file = {}, *closing;
	bool have_file = false;

#if defined(CALL_TEST) || defined(TRIGGER_CALLS)
	if (!call_wanted(spec, thread, nr, ret, start, now)) {
		if (spec->fd_at_entry)
			closing_files.delete(&tid);
		return;
	}
#endif
	OPAQUE(nr); /* or its mask is dropped, because a copy of it was found to be small */
	add_call(nr);
	__builtin_memset(event, 0, sizeof(*event));
	FILL_HEADER(event, EVENT_SYSCALL, start ? start : now, 0);
	if (start)
		event->duration_ns = now - start;
	else
		event->flags |= FLAG_NO_START;
	if (spec->no_return)
		event->flags |= FLAG_NO_RETURN;
	event->ret = ret;
	event->pid = thread >> 32;
	event->tid = tid;
	event->syscall = nr;
	comm_of(task, event->comm);

	at = (spec->args & 7) * 8;
	event->args_bytes = at;
	__builtin_memcpy(scratch->var, scratch->args, 48);

	if (spec->fd_at_entry) {
		closing = closing_files.lookup(&tid);
		if (closing) {
			file = *closing;
			have_file = start;
			closing_files.delete(&tid);
		}
	} else if (spec->returns_fd) {
		have_file = ret >= 0 && read_file(task, ret, ret, &file);
	} else if (spec->fd != NONE || spec->fds != NONE) {
		u64 fds, checked = ret;

		if (spec->fd != NONE) {
			fds = (u32)scratch->args[spec->fd & 7];
		} else if (ret) {
			fds = NO_FDS;
		} else if (bpf_probe_read_user(&fds, sizeof(fds), (void *)scratch->args[spec->fds & 7])) {
			event->flags |= FLAG_READ_FAILED;
			fds = NO_FDS;
		} else {
			*(u64 *)&scratch->var[at] = fds; /* behind the arguments, as one more */
			at += sizeof(fds);
			event->args_bytes = at;
			checked = -1; /* another thread may have written other numbers there */
		}
		have_file = fds != NO_FDS && read_file(task, (u32)fds, checked, &file);
	}
	if (have_file) {
#ifdef SCOPED
		if (!spec->manages)
			scope_cookie(file.cookie);
#endif
		*(struct file_info *)&scratch->var[at] = file; /* behind arguments of eight bytes each */
		event->file_bytes = sizeof(file);
		at += sizeof(file);
	}
	if (spec->path != NONE) {
		got = append_path(scratch, at, scratch->args[spec->path & 7], FLAG_PATH_CUT);
		event->path_bytes = got;
		at += got;
		if (spec->path2 != NONE) {
			got = append_path(scratch, at, scratch->args[spec->path2 & 7], FLAG_PATH2_CUT);
			event->path2_bytes = got;
			at += got;
		}
	}
	if (spec->address != NONE) {
		u64 from = scratch->args[spec->address & 7], bytes = scratch->args[(spec->address + 1) & 7];

		if (spec->address_out) {
			u32 filled = 0;

			if (ret < 0 || !from || bpf_probe_read_user(&filled, sizeof(filled), (void *)bytes))
				filled = 0;
			bytes = filled;
		}
		if (from && bytes) {
			got = append_user(scratch, at, from, bytes & 0xffff, ADDRESS_BYTES);
			event->address_bytes = got;
			at += got;
		}
	}
	if (spec->data_kind && ret > 0 && IO_BYTES > 0 && is_shed(SHED_DATA)) {
		count(COUNT_SYSCALL_DATA_SHED);
	} else if (spec->data_kind && ret > 0 && IO_BYTES > 0) {
		u64 from = scratch->args[spec->data & 7];
		u32 left = ret > IO_BYTES ? IO_BYTES : ret;

		if (spec->data_kind == DATA_BUFFER) {
			got = append_user(scratch, at, from, left, IO_BYTES);
		} else if (spec->data_kind == DATA_IOVEC) {
			got = append_iovecs(scratch, at, from, scratch->args[(spec->data + 1) & 7], left);
		} else {
			struct message message = {};
			u32 bytes = spec->data_kind == DATA_MESSAGES ? MMSGHDR_BYTES : MSGHDR_BYTES;

			got = 0;
			if (bpf_probe_read_user(&message, bytes, (void *)from)) {
				event->flags |= FLAG_READ_FAILED;
			} else {
				if (spec->data_kind == DATA_MESSAGES)
					left = message.bytes > IO_BYTES ? IO_BYTES : message.bytes;
				if (message.name && message.name_bytes) {
					got = append_user(scratch, at, message.name, message.name_bytes & 0xffff,
							  ADDRESS_BYTES);
					event->address_bytes = got;
					at += got;
				}
				got = append_iovecs(scratch, at, message.iovecs, message.iovec_count, left);
			}
		}
		event->data_bytes = got;
		add_bytes(SEEN_DATA, got);
		at += got;
	}
	if (event->flags & FLAG_READ_FAILED)
		count(COUNT_SYSCALL_READ_FAILED);
	OPAQUE(at);
	at &= VAR_MASK;
	submit(event, sizeof(*event) + at, COUNT_RECORDED_SYSCALL, COUNT_SYSCALL_NO_SPACE);
}

/* The spec of a wanted call. */
static __always_inline struct syscall_spec *wanted_call(u32 nr)
{
	struct syscall_spec *spec;

	if (nr >= 512)
		return NULL;
	spec = syscall_specs.lookup(&nr);
	return spec && spec->wanted ? spec : NULL;
}

/* Calls that must be looked at before they run: those that do not return, and close, whose file is gone afterwards. */
static __always_inline void before_call(struct bpf_raw_tracepoint_args *ctx, struct syscall_spec *spec, u64 task, u32 tid,
					u64 now)
{
	struct call_registers call;
	struct syscall_scratch *scratch;
	struct file_info file = {};

	if (!read_call(ctx, &call) || call.segment == CODE_SEGMENT_32BIT)
		return;
	if (spec->fd_at_entry) {
		if (!read_file(task, (u32)call.args[0], -1, &file))
			closing_files.delete(&tid);
		else if (closing_files.update(&tid, &file))
			count(COUNT_CLOSING_MAP_FULL);
		return;
	}
	scratch = load_args(&call);
	if (scratch)
		syscall_record(scratch, spec, task, call.nr, 0, now, now);
}

static __always_inline int call_begins(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = running_task(), thread = thread_of(task), now, *start;
	u32 nr = ctx->args[1], tid = thread;
	struct syscall_spec *spec = wanted_call(nr);
	bool left_out;

	start = syscall_starts.lookup(&tid);
	left_out = !spec || is_own(thread >> 32) || OUT_OF_SCOPE();
	if (!left_out && spec->wanted == SHED_CALL) {
		count(COUNT_SYSCALL_SHED);
		left_out = true;
	}
	if (left_out) {
		if (start)
			*start = this_span().number;
		return 0;
	}
	now = bpf_ktime_get_ns();
	if (start)
		*start = now;
	else
		count(COUNT_THREAD_UNTRACKED);
	if (spec->no_return || spec->fd_at_entry)
		before_call(ctx, spec, task, tid, now);
	return 0;
}

static __always_inline int call_ends(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = running_task(), thread = thread_of(task), began = 0, *start;
	u32 tid = thread;
	s64 ret = ctx->args[1];
	struct call_registers call;
	struct syscall_spec *spec;
	struct syscall_scratch *scratch;

#ifdef ONLY_EXITS
	/* Nobody notes entries, so every exit is looked at: first at nothing but the number. */
	u64 number = 0;

	start = NULL;
	if (bpf_probe_read_kernel(&number, sizeof(number),
				  (void *)(ctx->args[0] + __builtin_offsetof(struct registers, orig_ax))) ||
	    !wanted_call(number))
		return 0;
#else
	start = syscall_starts.lookup(&tid);
	if (start) {
		struct calls_span span = this_span();

		began = *start;
		if (began == span.number)
			return 0;
		*start = span.number;
		if (began < span.since_ns)
			began = 0;
	}
#endif
	if (is_own(thread >> 32) || !read_call(ctx, &call))
		return 0;
	spec = wanted_call(call.nr);
	if (!spec || (!began && OUT_OF_SCOPE()))
		return 0;
	if (call.segment == CODE_SEGMENT_32BIT) {
		count(COUNT_SYSCALL_FOREIGN_ABI); /* its numbers mean other calls */
		return 0;
	}
	if (!began) {
		if (spec->child_returns && ret == 0)
			return 0;
#ifndef ONLY_EXITS /* then nobody is told how long calls took */
		count(COUNT_SYSCALL_NO_START);
#endif
	}
	scratch = load_args(&call);
	if (scratch)
		syscall_record(scratch, spec, task, call.nr, ret, began, bpf_ktime_get_ns());
	return 0;
}

MEASURED(syscall_enter, COST_CALLS, struct bpf_raw_tracepoint_args, call_begins(ctx))
MEASURED(syscall_exit, COST_CALLS, struct bpf_raw_tracepoint_args, call_ends(ctx))
