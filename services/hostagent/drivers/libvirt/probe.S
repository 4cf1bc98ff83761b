# The probe guest: one boot sector that goes to long mode and says so on the first serial port, then rests.
# Assembled: as --64 -o p.o probe.S && ld -m elf_x86_64 -Ttext 0x7c00 --oformat binary -o probe.bin p.o
    .code16
    .globl _start
_start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw $0x1000, %di           # page tables at 0x1000, 0x2000, 0x3000: the first 2 MiB, mapped as they are
    movw $0x1800, %cx
    rep stosw
    movl $0x2003, 0x1000
    movl $0x3003, 0x2000
    movl $0x83, 0x3000
    movl %cr4, %eax
    orl $0x20, %eax             # physical address extension
    movl %eax, %cr4
    movl $0x1000, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax            # long mode
    wrmsr
    movl %cr0, %eax
    orl $0x80000001, %eax       # paging and protection
    movl %eax, %cr0
    lgdt table
    ljmp $8, $say
    .code64
say:
    movl $text, %esi
    movw $0x3f8, %dx
next:
    movb (%rsi), %al
    incl %esi
    testb %al, %al
    jz rest
    outb %al, %dx
    jmp next
rest:
    hlt
    jmp rest
    .align 8
descriptors:
    .quad 0, 0x00209a0000000000
table:
    .word 15
    .long descriptors
text:
    .asciz "moln-probe-ok\n"
    .org 510
    .word 0xaa55
