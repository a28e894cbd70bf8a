/* What a descriptor of the current task stands for, and the registers of its system call. */

#define CODE_SEGMENT_32BIT 0x23

/* Section "file" of a record. */
struct file_info {
	u64 identity;
	u64 cookie;
	u64 inode;
	u32 device;
	u32 mode;
};

/* struct pt_regs of x86_64, part of the kernel's interface to ptrace. */
struct registers {
	u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp;
};

/* Number and arguments of the current call. */
struct call_registers {
	u64 args[6];
	u32 nr;
	u16 segment;
};

/* A tracepoint of system calls hands over where the registers are. */
static __always_inline bool read_call(struct bpf_raw_tracepoint_args *ctx, struct call_registers *call)
{
#ifdef HAVE_CAST
	u64 registers = CAST_KERNEL(ctx->args[0], pt_regs);

#define LOAD_REGISTER(type, into, name) LOAD_KERNEL(type, into, registers, __builtin_offsetof(struct registers, name))
	LOAD_REGISTER(u32, call->nr, orig_ax);
	LOAD_REGISTER(u16, call->segment, cs);
	LOAD_REGISTER(u64, call->args[0], di);
	LOAD_REGISTER(u64, call->args[1], si);
	LOAD_REGISTER(u64, call->args[2], dx);
	LOAD_REGISTER(u64, call->args[3], r10);
	LOAD_REGISTER(u64, call->args[4], r8);
	LOAD_REGISTER(u64, call->args[5], r9);
#else
	struct registers regs;

	if (bpf_probe_read_kernel(&regs, sizeof(regs), (void *)ctx->args[0]))
		return false;
	call->nr = regs.orig_ax;
	call->segment = regs.cs;
	call->args[0] = regs.di;
	call->args[1] = regs.si;
	call->args[2] = regs.dx;
	call->args[3] = regs.r10;
	call->args[4] = regs.r8;
	call->args[5] = regs.r9;
#endif
	return true;
}

#define MODE_TYPE 0170000
#define MODE_SOCKET 0140000

#define MODE_FILE 0100000
#define MODE_DIRECTORY 0040000
#define EBADF 9

#ifdef HAVE_BTF
/*
 * Where members cannot be loaded those of one structure are read at once (BLOCK_*: from the first wanted one to the last), because a
 * read costs the same for eight bytes as for eighty; one by one in kernels that have them so far apart that the stack would not
 * hold what is between.
 */
#define BLOCK_BYTES_MOST 96

static __always_inline bool read_file_members(u64 file, u64 *inode, u64 *private)
{
#ifdef HAVE_CAST
	u64 typed = CAST_KERNEL(file, file);

	LOAD_KERNEL(u64, *inode, typed, OFF_file_f_inode);
	LOAD_KERNEL(u64, *private, typed, OFF_file_private_data);
	return true;
#elif BLOCK_file_BYTES <= BLOCK_BYTES_MOST
	u8 block[BLOCK_file_BYTES];

	if (!READ_KERNEL(block, file, BLOCK_file))
		return false;
	*inode = *(u64 *)&block[OFF_file_f_inode - BLOCK_file];
	*private = *(u64 *)&block[OFF_file_private_data - BLOCK_file];
	return true;
#else
	return READ_KERNEL(*inode, file, OFF_file_f_inode) && READ_KERNEL(*private, file, OFF_file_private_data);
#endif
}

static __always_inline bool read_inode_members(u64 inode, u16 *mode, u64 *super, u64 *number)
{
#ifdef HAVE_CAST
	u64 typed = CAST_KERNEL(inode, inode);

	LOAD_KERNEL(u16, *mode, typed, OFF_inode_i_mode);
	LOAD_KERNEL(u64, *super, typed, OFF_inode_i_sb);
	LOAD_KERNEL(u64, *number, typed, OFF_inode_i_ino);
	return true;
#elif BLOCK_inode_BYTES <= BLOCK_BYTES_MOST
	u8 block[BLOCK_inode_BYTES];

	if (!READ_KERNEL(block, inode, BLOCK_inode))
		return false;
	*mode = *(u16 *)&block[OFF_inode_i_mode - BLOCK_inode];
	*super = *(u64 *)&block[OFF_inode_i_sb - BLOCK_inode];
	*number = *(u64 *)&block[OFF_inode_i_ino - BLOCK_inode];
	return true;
#else
	return READ_KERNEL(*mode, inode, OFF_inode_i_mode) && READ_KERNEL(*super, inode, OFF_inode_i_sb) &&
	       READ_KERNEL(*number, inode, OFF_inode_i_ino);
#endif
}
#endif

/*
 * What the fd of `task`, which runs, stands for. Kernel structures are read without locks: a racing close gives stale, never
 * unsafe, values.
 */
static __always_inline bool read_file(u64 task, u64 fd, s64 ret, struct file_info *info)
{
#ifdef HAVE_BTF
	u64 files, table, array, file, super = 0, sock, inode = 0, private = 0;
	u32 limit = 0;
	u16 mode = 0;

	LOAD_KERNEL(u64, files, task, OFF_task_struct_files);
	if (!files)
		return false;
	LOAD_KERNEL(u64, table, files, OFF_files_struct_fdt);
	if (!table)
		return false;
	/* A call that succeeded has proved its fd; that of a failed one may point past the table. */
	if (ret < 0) {
		LOAD_KERNEL(u32, limit, table, OFF_fdtable_max_fds);
		if (ret == -EBADF || fd >= limit)
			return false;
	}
	LOAD_KERNEL(u64, array, table, OFF_fdtable_fd);
	LOAD_MEMBER(u64, file, array + fd * 8, timespec64, 0); /* for its first member, which is a number of 64 bits */
	if (!file || !read_file_members(file, &inode, &private))
		return false;
	if (!inode || !read_inode_members(inode, &mode, &super, &info->inode))
		return false;
	info->identity = file;
	info->mode = mode;
	mode &= MODE_TYPE;
	if (mode == MODE_SOCKET && private) {
		LOAD_MEMBER(u64, sock, private, socket, OFF_socket_sk);
		if (sock)
			LOAD_MEMBER(u64, info->cookie, sock, sock, OFF_sock___sk_common + OFF_sock_common_skc_cookie);
	} else if ((mode == MODE_FILE || mode == MODE_DIRECTORY) && super) {
		LOAD_MEMBER(u32, info->device, super, super_block, OFF_super_block_s_dev);
	}
	return true;
#else
	return false;
#endif
}
