/* BCC brings its own. */
#pragma once
#include <bcc/bpf.h>
