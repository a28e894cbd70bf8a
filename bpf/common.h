/* What every program uses: the ring buffer, the counters, and how a record is handed over. */

#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

/* The compiler drops masks that it can prove useless, but the verifier needs to see them: hide the value from the former. */
#define OPAQUE(value) asm volatile("" : "+r"(value))

/*
 * 1 to `most`. Verifiers before 6.8 learn nothing from a value that is not zero, only from one that is less: so what is one less is
 * tested, and the value made of it again where the test has been passed.
 */
#define WITHIN(value, most)                                                    \
	({                                                                     \
		bool within = false;                                           \
		u64 one_less = (value) - 1;                                    \
		OPAQUE(one_less);                                              \
		if (one_less < (most)) {                                       \
			OPAQUE(one_less);                                      \
			(value) = one_less + 1;                                \
			within = true;                                         \
		}                                                              \
		within;                                                        \
	})

/*
 * True when nobody on this processor holds `busy`; LEAVE it afterwards, TAKEn or not. The sum is read again instead of being
 * returned, which newer compilers do only for kernels that have that: two that meet may both fail, never both hold it.
 */
#define TAKE(busy) (__sync_fetch_and_add(busy, 1), *(volatile u64 *)(busy) == 1)
#define LEAVE(busy) __sync_fetch_and_add(busy, -1)

#define RB_NO_WAKEUP 1 /* BPF_RB_NO_WAKEUP: the recorder polls, so the workload never pays for a wake-up */
#define FAMILY_INET 2
#define FAMILY_INET6 10

BPF_RINGBUF_OUTPUT(events, RING_PAGES);
BPF_PERCPU_ARRAY(counters, u64, COUNTERS);

/* The recorder, and the process that converts for it, are not recorded. */
#ifdef OWN_CHILD
#define OWN_CHILD_NEXT 0xffffffff /* the next process that the recorder starts is it */
BPF_ARRAY(own_child, u32, 1);

static __always_inline bool is_own(u32 pid)
{
	int zero = 0;
	u32 *child = own_child.lookup(&zero);

	return pid == SELF_PID || (child && pid == *child);
}
#else
#define is_own(pid) ((pid) == SELF_PID)
#endif

#if defined(CALL_TEST) || defined(TRIGGERS)
struct call_facts {
	u64 duration_ns;
	s64 ret;
	u64 comm[2];
	u32 pid, tid, nr;
	bool returned, timed;
};
#endif

static __always_inline void count(int which)
{
	u64 *value = counters.lookup(&which);

	/* Atomic although per CPU: an interrupt may come between load and store. */
	if (value)
		__sync_fetch_and_add(value, 1);
}

/* Hand a record over, or count it under `lost`. */
static __always_inline bool submit(void *record, u64 bytes, int recorded, int lost)
{
	bool done = events.ringbuf_output(record, bytes, RB_NO_WAKEUP) == 0;

	count(done ? recorded : lost);
	return done;
}

#define FILL_HEADER(record, id, at_ns, bits)                                   \
	do {                                                                   \
		(record)->ts_ns = at_ns;                                       \
		(record)->event = id;                                          \
		(record)->cpu = bpf_get_smp_processor_id();                    \
		(record)->flags = bits;                                        \
	} while (0)

/*
 * By its number (include/uapi/linux/bpf.h): where bcc may not read the kernel's symbols, it makes of the helper's name the older
 * bpf_probe_read, which not every type of program may call.
 */
static long (*read_kernel)(void *into, u32 bytes, const void *from) = (void *)113;

/* Kernel memory at an offset that BTF gave; false when unreadable. */
#define READ_KERNEL(into, base, offset)                                        \
	(read_kernel(&(into), sizeof(into), (void *)((u64)(base) + (offset))) == 0)

/*
 * The running task as the verifier knows it by BTF (bpf_get_current_task_btf by its number, which not every bcc has a name for):
 * its members, and those of what they point to, are loaded without calling a helper. `type` is u32 or u64. A load that meets no
 * memory gives zero.
 */
static u64 (*current_task)(void) = (void *)158;

#define LOAD_KERNEL(type, into, base, offset)                                  \
	do {                                                                   \
		u64 loaded;                                                    \
		asm volatile("%0 = *(" #type " *)(%1 + %2)" : "=r"(loaded) : "r"(base), "i"(offset)); \
		(into) = loaded;                                               \
	} while (0)

#ifdef HAVE_CAST
/*
 * An address as the verifier knows `struct kind` by BTF, so that members are loaded as those of the running task are: bpf_rdonly_cast (6.2),
 * of which nothing is left in the loaded program. It is no helper but a function of the kernel, to which bcc cannot compile a
 * call: record/kernel_functions.py makes one of a call to a helper with this number.
 */
static u64 (*cast_kernel)(u64 address, u32 type) = (void *)(KERNEL_FUNCTIONS + CAST_FUNCTION);
#define CAST_KERNEL(address, kind) cast_kernel(address, TYPE_##kind)
/* A member of `kind`; zero where it cannot be read. */
#define LOAD_MEMBER(type, into, address, kind, offset) LOAD_KERNEL(type, into, CAST_KERNEL(address, kind), offset)
#else
#define LOAD_MEMBER(type, into, address, kind, offset)                         \
	do {                                                                   \
		type read = 0;                                                 \
		READ_KERNEL(read, address, offset);                            \
		(into) = read;                                                 \
	} while (0)
#endif

/*
 * Whether a helper can be done without, for what each packet and acknowledgement does: a call costs several times what a few
 * loads do.
 */
#if defined(HAVE_CAST) && defined(HAVE_QUICK_BTF)
#define QUICK
#define MIX 0x9e3779b97f4a7c15ULL

static __always_inline u64 cookie_of(u64 sk)
{
	u64 cookie;

	LOAD_MEMBER(u64, cookie, sk, sock, OFF_sock___sk_common + OFF_sock_common_skc_cookie);
	return cookie;
}
#endif

#ifdef HAVE_BTF
#define running_task() current_task()
#else
#define running_task() 0
#endif

/* Number of the process in the upper half, of the thread in the lower. */
static __always_inline u64 thread_of(u64 task)
{
#ifdef HAVE_BTF
	u32 pid, tid;

	LOAD_KERNEL(u32, pid, task, OFF_task_struct_tgid);
	LOAD_KERNEL(u32, tid, task, OFF_task_struct_pid);
	return (u64)pid << 32 | tid;
#else
	return bpf_get_current_pid_tgid();
#endif
}

/* The running thread's name, 16 bytes. */
static __always_inline void comm_of(u64 task, u8 *into)
{
#ifdef HAVE_BTF
	LOAD_KERNEL(u64, *(u64 *)into, task, OFF_task_struct_comm);
	LOAD_KERNEL(u64, *(u64 *)(into + 8), task, OFF_task_struct_comm + 8);
#else
	bpf_get_current_comm(into, 16);
#endif
}
