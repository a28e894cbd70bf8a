/* Processes: fork, exec, exit. Reads of kernel structures need BTF (HAVE_BTF); without it forks are not seen. */

#define PROCESS_FORK 1
#define PROCESS_EXEC 2
#define PROCESS_EXIT 3
#define PROGRAM_BYTES 1024
#define CMDLINE_BYTES 4096
#define CMDLINE_CUT 1
/* Masks tell the verifier what the code already knows; all are one below a power of two. */
#define PROGRAM_MASK (2 * PROGRAM_BYTES - 1)
#define CMDLINE_MASK (CMDLINE_BYTES - 1)
#define TEXT_MASK (2 * CMDLINE_BYTES - 1)

struct process_record {
	struct process_event event;
	u8 text[TEXT_MASK + 1];
};
BPF_PERCPU_ARRAY(process_records, struct process_record, 1);

/* Tracepoint programs run with preemption off and these hooks do not nest, so one record a processor is enough. */
static __always_inline struct process_record *process_record(u64 task, u32 what)
{
	int zero = 0;
	struct process_record *record = process_records.lookup(&zero);
	struct process_event *event;
	u64 thread = bpf_get_current_pid_tgid(), user = bpf_get_current_uid_gid();

	if (!record)
		return NULL;
	event = &record->event;
	__builtin_memset(event, 0, sizeof(*event));
	FILL_HEADER(event, EVENT_PROCESS, bpf_ktime_get_ns(), 0);
	event->cgroup_id = bpf_get_current_cgroup_id();
	event->pid = thread >> 32;
	event->tid = thread;
	event->uid = user;
	event->gid = user >> 32;
	event->what = what;
	bpf_get_current_comm(event->comm, sizeof(event->comm));
#ifdef HAVE_BTF
	u64 leader = 0, parent = 0, proxy = 0, net = 0;

	/* A thread's own start time is its creation; the process began with its leader. */
	if (READ_KERNEL(leader, task, OFF_task_struct_group_leader) && leader)
		READ_KERNEL(event->start_ns, leader, OFF_task_struct_start_boottime);
	if (READ_KERNEL(parent, task, OFF_task_struct_real_parent) && parent)
		READ_KERNEL(event->parent_pid, parent, OFF_task_struct_tgid);
	if (READ_KERNEL(proxy, task, OFF_task_struct_nsproxy) && proxy &&
	    READ_KERNEL(net, proxy, OFF_nsproxy_net_ns) && net)
		READ_KERNEL(event->netns_inode, net, OFF_net_ns + OFF_ns_common_inum);
#endif
	return record;
}

static __always_inline void submit_process(struct process_record *record, u64 bytes)
{
	submit(&record->event, sizeof(record->event) + bytes, COUNT_RECORDED_PROCESS, COUNT_PROCESS_NO_SPACE);
}

#ifdef HAVE_BTF
int process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	u64 child = ctx->args[1];
	u32 pid = 0, tid = 0;
	struct process_record *record;

	READ_KERNEL(tid, child, OFF_task_struct_pid);
	READ_KERNEL(pid, child, OFF_task_struct_tgid);
	if (pid != tid)
		return 0; /* a thread, not a process */
#ifdef OWN_CHILD
	int zero = 0;
	u32 *own = own_child.lookup(&zero);

	if (own && *own == OWN_CHILD_NEXT && (u32)(bpf_get_current_pid_tgid() >> 32) == SELF_PID) {
		*own = pid;
		return 0;
	}
#endif
#ifdef SCOPED
	if (!task_in_scope())
		return 0;
	scope_fork(pid);
#endif
	record = process_record(child, PROCESS_FORK);
	if (!record)
		return 0;
	record->event.pid = pid;
	record->event.tid = tid;
	submit_process(record, 0);
	return 0;
}
#endif

int process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct process_record *record;
	u64 at = 0;

#ifdef WITH_SYSCALLS
	/* A thread that is not the leader gets the leader's id by its exec: its open call goes with it. */
	u32 tid = bpf_get_current_pid_tgid(), old_tid = ctx->args[1];
	u64 *start_now = syscall_starts.lookup(&tid), *start_before = syscall_starts.lookup(&old_tid);

	if (old_tid != tid && start_now && start_before) {
		*start_now = *start_before;
		*start_before = this_span().number;
	}
#endif
#ifdef SCOPED
	scope_exec();
	if (!task_in_scope())
		return 0;
#endif
#ifdef OWN_CHILD
	if (is_own(bpf_get_current_pid_tgid() >> 32))
		return 0;
#endif
	record = process_record(ctx->args[0], PROCESS_EXEC);
	if (!record)
		return 0;
#ifdef HAVE_BTF
	u64 program = 0, memory = 0, start = 0, end = 0;
	long got;

	if (READ_KERNEL(program, ctx->args[2], OFF_linux_binprm_filename)) {
		got = bpf_probe_read_kernel_str(record->text, PROGRAM_BYTES, (void *)program);
		if (got > 0 && got <= PROGRAM_BYTES) {
			at = got;
			record->event.path_bytes = got;
		}
	}
	if (READ_KERNEL(memory, ctx->args[0], OFF_task_struct_mm) && memory &&
	    READ_KERNEL(start, memory, OFF_mm_struct_arg_start) &&
	    READ_KERNEL(end, memory, OFF_mm_struct_arg_end) && end > start) {
		u64 bytes = end - start;

		if (bytes > CMDLINE_MASK) {
			bytes = CMDLINE_MASK;
			record->event.flags |= CMDLINE_CUT;
			count(COUNT_PROCESS_CMDLINE_CUT);
		}
		OPAQUE(at);
		OPAQUE(bytes);
		at &= PROGRAM_MASK;
		bytes &= CMDLINE_MASK;
		if (bpf_probe_read_user(&record->text[at], bytes, (void *)start) == 0) {
			record->event.cmdline_bytes = bytes;
			at += bytes;
		}
	}
#endif
	OPAQUE(at);
	submit_process(record, at & TEXT_MASK);
	return 0;
}

int process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0], thread = bpf_get_current_pid_tgid();
	struct process_record *record;
	u32 code = 0;
#ifdef WITH_SYSCALLS
	u32 tid = thread;
	u64 *start = syscall_starts.lookup(&tid);

	if (start)
		*start = this_span().number; /* so the next thread with this id begins without an open call */
#endif
#ifdef HAVE_BTF
	u64 signal = 0;
	u32 live = 0, group_code = 0;

	/* The process ends with its last thread, which need not be its leader. */
	if (READ_KERNEL(signal, task, OFF_task_struct_signal) && READ_KERNEL(live, signal, OFF_signal_struct_live) &&
	    live > 0)
		return 0;
	READ_KERNEL(code, task, OFF_task_struct_exit_code);
	if (signal && READ_KERNEL(group_code, signal, OFF_signal_struct_group_exit_code) && group_code)
		code = group_code;
#else
	if ((u32)(thread >> 32) != (u32)thread)
		return 0;
#endif
#ifdef SCOPED
	if (!task_in_scope())
		return 0;
	scope_exit();
#endif
#ifdef OWN_CHILD
	if (is_own(thread >> 32))
		return 0;
#endif
	record = process_record(task, PROCESS_EXIT);
	if (!record)
		return 0;
	record->event.exit_code = code;
#ifdef TRIGGER_EXITS
	struct exit_facts facts = {.pid = record->event.pid, .parent_pid = record->event.parent_pid}, *x = &facts;

	facts.code = code & 0x7f ? (code & 0x7f) + 128 : code >> 8 & 0xff;
	bpf_get_current_comm(facts.comm, sizeof(facts.comm));
	TRIGGER_EXITS(x);
#endif
	submit_process(record, 0);
	return 0;
}
