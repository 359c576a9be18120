/* The registers a system call leaves behind; the kernel's ABI. */
#pragma once
#if defined(__x86_64__)
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};
#elif defined(__aarch64__)
struct pt_regs {
	unsigned long long regs[31], sp, pc, pstate, orig_x0;
};
#else
#error "Tocsin knows x86-64 and arm64"
#endif
