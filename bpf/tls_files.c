/*
 * Files that are mapped or executed as programs: the recorder looks whether they are OpenSSL's, and then attaches tls.c to them.
 */

#define CALL_MMAP 9
#define MAP_EXECUTABLE 4 /* PROT_EXEC */

/* With the process that was the first. */
struct tls_file {
	u64 inode;
	u64 device;
};
BPF_HASH(tls_files, struct tls_file, u32, 16384);
BPF_ARRAY(tls_files_found, u64, 1);

/* Whether plaintext of the running process is wanted. */
static __always_inline bool tls_ours(void)
{
	return (u32)(bpf_get_current_pid_tgid() >> 32) != SELF_PID && !OUT_OF_SCOPE();
}

static __always_inline void tls_file(struct tls_file *file)
{
	u32 pid = bpf_get_current_pid_tgid() >> 32;
	int zero = 0;
	u64 *found;

	if (tls_files.lookup(file))
		return;
	tls_files.update(file, &pid);
	found = tls_files_found.lookup(&zero);
	if (found)
		__sync_fetch_and_add(found, 1);
}

int tls_mapped(struct bpf_raw_tracepoint_args *ctx)
{
	struct registers regs;
	struct file_info info = {};
	struct tls_file file = {};

	if (ctx->args[1] != CALL_MMAP ||
	    bpf_probe_read_kernel(&regs, sizeof(regs), (void *)ctx->args[0]) || !(regs.dx & MAP_EXECUTABLE) ||
	    (s32)regs.r8 < 0 || regs.cs == CODE_SEGMENT_32BIT || !tls_ours() ||
	    !read_file(running_task(), (u32)regs.r8, -1, &info))
		return 0;
	file.inode = info.inode;
	file.device = info.device;
	tls_file(&file);
	return 0;
}

#ifdef HAVE_TLS_BTF
int tls_executed(struct bpf_raw_tracepoint_args *ctx)
{
	u64 program = 0, inode = 0, super = 0;
	u32 device = 0;
	struct tls_file file = {};

	if (!tls_ours() || !READ_KERNEL(program, ctx->args[2], OFF_linux_binprm_file) || !program ||
	    !READ_KERNEL(inode, program, OFF_file_f_inode) || !inode ||
	    !READ_KERNEL(file.inode, inode, OFF_inode_i_ino) || !READ_KERNEL(super, inode, OFF_inode_i_sb) || !super ||
	    !READ_KERNEL(device, super, OFF_super_block_s_dev))
		return 0;
	file.device = device;
	tls_file(&file);
	return 0;
}
#endif
