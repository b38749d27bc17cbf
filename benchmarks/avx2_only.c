/* Hide AVX-512, VNNI and AMX from this process, so that every library takes the kernels of a CPU with AVX2 alone.

   Linux can let CPUID fault (arch_prctl, ARCH_CPUID). Here the fault is answered with what the CPU says, less
   those instructions. Loaded by LD_PRELOAD; threads inherit the setting, and a new program starts without it.
   It ends the process with 3 if the kernel or the CPU has no such faults. */

#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

enum { ARCH_SET_CPUID = 0x1012, FAULTS = 0, ANSWERS = 1, UNAVAILABLE = 3 };

#define BIT(n) (1u << (n))

/* Leaf 7: F, DQ, IFMA, PF, ER, CD, BW, VL; VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ;
   4VNNIW, 4FMAPS, VP2INTERSECT, AMX-BF16, FP16, AMX-TILE, AMX-INT8. */
static const unsigned HIDDEN_EBX =
    BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31);
static const unsigned HIDDEN_ECX = BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14);
static const unsigned HIDDEN_EDX = BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25);
/* Its second part: AVX-VNNI, AVX512-BF16, AMX-FP16, AVX-IFMA; AVX-VNNI-INT8, AVX-NE-CONVERT, AVX-VNNI-INT16, AVX10. */
static const unsigned HIDDEN_EAX_1 = BIT(4) | BIT(5) | BIT(21) | BIT(23);
static const unsigned HIDDEN_EDX_1 = BIT(4) | BIT(5) | BIT(10) | BIT(19);

static long set_cpuid(int answers) {
  return syscall(SYS_arch_prctl, ARCH_SET_CPUID, answers);
}

static void answer(int number, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  const unsigned char *code = (const unsigned char *)registers[REG_RIP];
  unsigned a, b, c, d, leaf = (unsigned)registers[REG_RAX], part = (unsigned)registers[REG_RCX];
  (void)info;
  if (code[0] != 0x0f || code[1] != 0xa2) { /* another fault: that of the program */
    signal(number, SIG_DFL);
    return;
  }
  set_cpuid(ANSWERS);
  __cpuid_count(leaf, part, a, b, c, d);
  set_cpuid(FAULTS);
  if (leaf == 7 && part == 0) {
    b &= ~HIDDEN_EBX;
    c &= ~HIDDEN_ECX;
    d &= ~HIDDEN_EDX;
  } else if (leaf == 7 && part == 1) {
    a &= ~HIDDEN_EAX_1;
    d &= ~HIDDEN_EDX_1;
  }
  registers[REG_RAX] = a;
  registers[REG_RBX] = b;
  registers[REG_RCX] = c;
  registers[REG_RDX] = d;
  registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void hide(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = answer;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  if (sigaction(SIGSEGV, &action, NULL) || set_cpuid(FAULTS))
    _exit(UNAVAILABLE);
}
