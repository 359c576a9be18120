#pragma once
#define BITS_PER_LONG 64
