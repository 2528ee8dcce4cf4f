# shellcheck shell=bash
# Making and booting the guests. Sourced after lib.sh.

GUESTS=()

# guest_busybox: prints the path of a busybox that the guest can use.
guest_busybox() {
    if is_foreign; then
        [[ -x $CACHE/busybox ]] || "$MATRIX/fetch.sh" --machine "$MACHINE" busybox >&2 || exit
        echo "$CACHE/busybox"
    else
        command -v busybox
    fi
}

# guest_tree DIR: makes the folder that becomes the guest's root, without /job.
guest_tree() {
    need busybox busybox-static
    need cpio cpio
    local root=$1 busybox
    busybox=$(guest_busybox) || exit
    mkdir -p "$root"/{bin,dev,etc,home/user,proc,root,run,sys,tmp}
    ln -s bin "$root/sbin"
    cp "$busybox" "$root/bin/busybox"
    busybox --list | while read -r applet; do
        [[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
    done
    install -m 755 "$MATRIX/init" "$root/init"
    printf '%s\n' root:x:0:0:root:/root:/bin/sh user:x:1000:1000:user:/home/user:/bin/sh >"$root/etc/passwd"
    printf '%s\n' root:x:0: user:x:1000: >"$root/etc/group"
    chmod 1777 "$root/tmp"
    chown 1000:1000 "$root/home/user" 2>/dev/null || true
}

# guest_program ROOT FILE NAME: puts an executable into the guest as /bin/NAME, with its libraries if it has any.
guest_program() {
    install -m 755 "$2" "$1/bin/$3"
    { ldd "$2" 2>/dev/null || true; } | sed -nE 's:[^/]*(/[^ ]+).*:\1:p' | while read -r library; do
        [[ -e $library ]] || continue
        mkdir -p "$1${library%/*}"
        cp -L "$library" "$1$library"
    done
}

# guest_modules ROOT KERNEL: puts the modules that this kernel needs into the guest.
guest_modules() {
    rm -rf "$1/modules"
    [[ ! -d $2/modules ]] || cp -r "$2/modules" "$1/modules"
}

guest_pack() { # ROOT INITRAMFS
    (cd "$1" && find . -print0 | sort -z | cpio --null -o -H newc --owner=0:0 --quiet) >"$2"
}

# guest_start KERNEL INITRAMFS CONSOLE-LOG SECONDS: boots in the background; what the job prints is our output.
# With GUEST_ONE_THREAD set, one thread of the host runs all processors of the guest in turn, each for up to 100 ms.
guest_start() {
    guest_machine
    if [[ ${GUEST_ONE_THREAD:-} ]]; then
        guest_qemu tcg,thread=single "$@"
        return
    fi
    if is_foreign; then
        guest_qemu tcg,thread=multi "$@"
        return
    fi
    guest_choose_accelerator "$1"
    guest_qemu "$(cat "$CACHE/accelerator.$BOOT_ID")" "$@"
}

# guest_wait PID CONSOLE-LOG: returns the job's exit code; 124 if the time ran out; 125 if the guest died before it
# reported one.
guest_wait() {
    local code=0
    wait "$1" || code=$?
    if ((code == 124 || code == 137)); then return 124; fi
    code=$(tr -d '\r' <"$2" | sed -n 's/^guest: exit \([0-9]*\)$/\1/p' | tail -n1)
    return "${code:-125}"
}

# guest_came_up CONSOLE-LOG: whether the guest finished booting, so that its end means something. On a busy host, an
# emulated machine may panic before that, because of its own timers.
guest_came_up() { grep -q '^guest: up' "$1"; }

# guest_machine: sets how qemu makes the machine, with the job's output on $port, and what its kernel is told.
# shellcheck disable=SC2054 # the commas are qemu's
guest_machine() {
    case $MACHINE in
        arm64-*)
            need qemu-system-aarch64 qemu-system-arm
            # "max" is slower; transparent huge pages of 16 KiB pages have 32 MiB.
            qemu=(qemu-system-aarch64 -M virt -cpu neoverse-n1)
            port=(-device virtio-serial-pci -device virtserialport,chardev=job)
            options="console=ttyAMA0 default_hugepagesz=2M"
            [[ $MACHINE != arm64-16k ]] || GUEST_MEMORY=${GUEST_MEMORY:-4G}
            ;;
        *)
            need qemu-system-x86_64 qemu-system-x86
            qemu=(qemu-system-x86_64 -M q35 -cpu max)
            port=(-serial chardev:job)
            options="console=ttyS0 earlyprintk=serial,ttyS0 reboot=t no_timer_check"
            ;;
    esac
}

# guest_qemu ACCELERATOR KERNEL INITRAMFS CONSOLE-LOG SECONDS
# The root is a ramfs: a program on a tmpfs would itself be memory of a tested type. The machine ends with this shell,
# however the shell ends. On a busy host an emulated machine is slow; the options keep the kernel from mistaking that
# for a broken timer or a hang.
guest_qemu() {
    local memory=(-m "${GUEST_MEMORY:-2G}" -smp "${GUEST_CPUS:-2}")
    # Two nodes of memory, each with a processor.
    # shellcheck disable=SC2054 # the commas are qemu's
    [[ ! ${GUEST_NODES:-} ]] || memory=(
        -m 2G -smp 2 -object memory-backend-ram,id=m0,size=1G -object memory-backend-ram,id=m1,size=1G
        -numa node,nodeid=0,cpus=0,memdev=m0 -numa node,nodeid=1,cpus=1,memdev=m1)
    truncate -s 256M "$3.swap"
    # Standard input never ends: to the guest, a port of virtio whose other side has ended is one that nobody reads.
    setpriv --pdeathsig TERM timeout --foreground --kill-after=5 "$5" \
        "${qemu[@]}" -accel "$1" "${memory[@]}" \
        -nodefaults -display none -no-reboot -kernel "$2/vmlinuz" -initrd "$3" \
        -append "$options panic=-1 quiet rootfstype=ramfs hugepages=${GUEST_HUGEPAGES:-64} \
            nowatchdog rcupdate.rcu_cpu_stall_suppress=1" \
        -drive "file=$3.swap,format=raw,if=none,id=swap,cache=unsafe" -device nvme,drive=swap,serial=swap \
        -serial "file:$4" -chardev stdio,id=job,signal=off "${port[@]}" <> <(:) &
    GUESTS+=($!)
}

guest_stop() { kill "${GUESTS[@]}" 2>/dev/null || true; }

# guest_choose_accelerator KERNEL: finds out, once per boot of the host, whether KVM really boots a stock kernel.
guest_choose_accelerator() {
    local work choice=tcg,thread=multi
    BOOT_ID=$(</proc/sys/kernel/random/boot_id)
    [[ -e $CACHE/accelerator.$BOOT_ID ]] && return
    if [[ -w /dev/kvm ]]; then
        work=$(mktemp -d "$CACHE/.kvm.XXXXXX")
        guest_tree "$work/root"
        printf '#!/bin/sh\n' >"$work/root/job"
        chmod +x "$work/root/job"
        guest_pack "$work/root" "$work/initramfs"
        guest_qemu kvm "$1" "$work/initramfs" "$work/console" 15 >"$work/output" 2>&1
        # Without the redirection, bash reports a qemu that aborts.
        { if guest_wait "${GUESTS[-1]}" "$work/console"; then choice=kvm; fi; } 2>/dev/null
        rm -rf "$work"
    fi
    echo "$choice" >"$CACHE/.accelerator.$$"
    mv "$CACHE/.accelerator.$$" "$CACHE/accelerator.$BOOT_ID"
}
