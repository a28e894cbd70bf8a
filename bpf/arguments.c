/* What the arguments of a system call point to, copied behind its record. */

#define PATH_BYTES 1024
#define ADDRESS_BYTES 128
#define IOVECS 8

#define FLAG_PATH_CUT 1
#define FLAG_PATH2_CUT 2
#define FLAG_READ_FAILED 4

struct syscall_scratch {
	u64 args[8];
	struct syscall_event event;
	u8 var[VAR_MASK + 1 + VAR_TAIL];
};
BPF_PERCPU_ARRAY(syscall_scratches, struct syscall_scratch, 1);

/* Append up to `bytes` of user memory to the record; the sum of all appended bytes stays within var. */
static __always_inline u32 append_user(struct syscall_scratch *scratch, u32 at, u64 from, u64 bytes, u32 most)
{
	if (bytes > most)
		bytes = most;
	if (bytes == 0)
		return 0;
	OPAQUE(bytes);
	if (bytes > VAR_TAIL)
		return 0;
	OPAQUE(at);
	at &= VAR_MASK;
	if (bpf_probe_read_user(&scratch->var[at], bytes, (void *)from)) {
		scratch->event.flags |= FLAG_READ_FAILED;
		return 0;
	}
	return bytes;
}

static __always_inline u32 append_path(struct syscall_scratch *scratch, u32 at, u64 from, u32 cut_flag)
{
	long got;

	OPAQUE(at);
	at &= VAR_MASK;
	got = bpf_probe_read_user_str(&scratch->var[at], PATH_BYTES, (void *)from);
	if (got <= 0 || got > PATH_BYTES) {
		if (from)
			scratch->event.flags |= FLAG_READ_FAILED;
		return 0;
	}
	if (got == PATH_BYTES) {
		scratch->event.flags |= cut_flag;
		count(COUNT_SYSCALL_PATH_CUT);
	}
	return got;
}

/* struct msghdr, and the count that struct mmsghdr adds behind it. */
#define MSGHDR_BYTES 56
#define MMSGHDR_BYTES 64
struct message {
	u64 name;
	u32 name_bytes;
	u32 spare;
	u64 iovecs;
	u64 iovec_count;
	u64 control, control_bytes;
	u64 flags;
	u32 bytes, spare2; /* in struct mmsghdr only */
};

static __always_inline u32 append_iovecs(struct syscall_scratch *scratch, u32 at, u64 iovecs, u64 iovec_count,
					 u32 left)
{
	struct {
		u64 base, bytes;
	} iovec;
	u32 total = 0, got;

#pragma unroll
	for (int i = 0; i < IOVECS; i++) {
		if (i >= iovec_count || left == 0 || left > IO_BYTES)
			break;
		if (bpf_probe_read_user(&iovec, sizeof(iovec), (void *)(iovecs + i * sizeof(iovec)))) {
			scratch->event.flags |= FLAG_READ_FAILED;
			break;
		}
		got = append_user(scratch, at + total, iovec.base, iovec.bytes, left);
		total += got;
		left -= got;
	}
	return total;
}

static __always_inline struct syscall_scratch *load_args(struct call_registers *call)
{
	int zero = 0;
	struct syscall_scratch *scratch = syscall_scratches.lookup(&zero);

	if (scratch)
		__builtin_memcpy(scratch->args, call->args, sizeof(call->args));
	return scratch;
}
