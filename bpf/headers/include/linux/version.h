/* BCC wants a number; programs of the types used here are not checked against it. Offsets come from BTF instead. */
#pragma once
#define LINUX_VERSION_CODE 0x050f00
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
