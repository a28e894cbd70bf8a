#pragma once
#include <linux/types.h>
#include <bcc/bpf.h>
