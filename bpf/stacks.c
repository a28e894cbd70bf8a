/*
 * Stacks of the kernel. One costs more than all the rest of a record, and a place is reached in few ways: it is taken of the first
 * that happen at a place and of some later ones.
 */

#define STACKS 2048
#define STACKS_AT_ONCE 32
#define STACK_EVERY 256

/* A stack whose place is taken by another has a negative number. */
BPF_TABLE("stacktrace", int, struct bpf_stacktrace, kernel_stacks, STACKS);

/* `number`: how many there were at its place before. */
static __always_inline bool takes_stack(u64 number)
{
	return number < STACKS_AT_ONCE || number % STACK_EVERY == 0;
}
