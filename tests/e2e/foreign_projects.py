"""Own small projects for the foreign builds: the files of each, by their path below its directory.

Each is built as its users build such a project. `many` makes enough compile commands that one which
runs here is not a fifth of them.
"""

MANY = 8


def many(template: str, directory: str = "") -> dict[str, str]:
    """Return MANY sources, made from a text with {n} for their number."""
    return {f"{directory}part{n}.c": template.replace("{n}", str(n)) for n in range(MANY)}


PARTS = " ".join(f"part{n}.o" for n in range(MANY))
CALLS = "+".join(f"part{n}()" for n in range(MANY))
DECLARATIONS = "".join(f"int part{n}(void);\n" for n in range(MANY))
MAIN = f"{DECLARATIONS}int main(void) {{ return {CALLS} == 0; }}\n"
PART = '#include <stdio.h>\nint part{n}(void) { return printf("%s %d\\n", __FILE__, __LINE__); }\n'

DEBIAN = {
    **many(PART),
    "main.c": MAIN,
    "Makefile": f"""
prefix = /usr
program: main.o {PARTS}
	$(CC) $(LDFLAGS) -o $@ $^
install: program
	install -d $(DESTDIR)$(prefix)/bin $(DESTDIR)$(prefix)/share/hi
	install -m 755 program $(DESTDIR)$(prefix)/bin/hi
	install -m 644 main.c $(DESTDIR)$(prefix)/share/hi/
	chown -R root:games $(DESTDIR)$(prefix)/share/hi
clean:
	rm -rf program *.o
""",
    "debian/control": """Source: hi
Section: misc
Priority: optional
Maintainer: A Builder <builder@example.com>
Standards-Version: 4.6.2
Rules-Requires-Root: binary-targets

Package: hi
Architecture: any
Description: a program that says hi
 It is built in a test.
""",
    "debian/changelog": """hi (1.0) unstable; urgency=low

  * First release.

 -- A Builder <builder@example.com>  Thu, 01 Jan 2026 00:00:00 +0000
""",
    "debian/source/format": "3.0 (native)\n",
    "debian/rules": """#!/usr/bin/make -f
export CFLAGS = -g -O2 -ffile-prefix-map=$(CURDIR)=.
build build-arch build-indep:
	$(MAKE) program
clean:
	$(MAKE) clean
	rm -rf debian/hi debian/files debian/substvars
binary binary-arch: build
	rm -rf debian/hi
	$(MAKE) install DESTDIR=$(CURDIR)/debian/hi
	strip debian/hi/usr/bin/hi
	install -d -o root -g root debian/hi/DEBIAN
	dpkg-gencontrol -Pdebian/hi
	chown -R root:root debian/hi/usr/bin
	dpkg-deb --build debian/hi ..
binary-indep:
.PHONY: build build-arch build-indep clean binary binary-arch binary-indep
""",
}

# go runs the C compiler of cgo by itself, here, so this has many packages beside one with cgo.
PACKAGES = 24
GO = {
    **{f"p{n}/p.go": f"package p{n}\n\nfunc F() int {{ return {n} }}\n" for n in range(PACKAGES)},
    "go.mod": "module example.com/top\n\ngo 1.19\n",
    "main.go": """package main

import (
	"example.com/top/two"
{imports}
)

func main() {{ println(two.F() + {sum}) }}
""".format(
        imports="\n".join(f'\t"example.com/top/p{n}"' for n in range(PACKAGES)),
        sum=" + ".join(f"p{n}.F()" for n in range(PACKAGES)),
    ),
    "two/two.go": """package two

// #include "two.h"
import "C"

func F() int { return int(C.two()) }
""",
    "two/two.h": "int two(void);\n",
    "two/two.c": "int two(void) { return 2; }\n",
}

VENV = {
    "generate.py": """import sys
number = sys.argv[1]
print(f'const char *prefix{number} = "{sys.prefix} {sys.base_prefix} {sys.executable}";')
print(f"int part{number}(void) {{ return {number}; }}")
""",
    "main.c": MAIN,
    "Makefile": f"""
all: program versions
program: main.o {PARTS} ; $(CC) -o $@ $^
part%.o: part%.c ; $(CC) -c $<
part%.c: generate.py ; python generate.py $* >$@
versions: ; mytool >$@ && python -c 'import sys; print(sys.version)' >>$@
""",
}

MODULE = {
    **many("int part{n}(void);\nint part{n}(void) { return {n}; }\n", "parts/"),
    "first.c": """#include <linux/module.h>
#include "parts/parts.h"
static int __init first_init(void) { return part0() + second(); }
static void __exit first_exit(void) {}
module_init(first_init);
module_exit(first_exit);
MODULE_LICENSE("GPL");
""",
    "second.c": """#include <linux/kernel.h>
#include "parts/parts.h"
int second(void) { pr_info("second\\n"); return 0; }
""",
    "parts/parts.h": f"{DECLARATIONS}int second(void);\n",
    "Kbuild": f"obj-m := hi.o\nhi-y := first.o second.o {' '.join(f'parts/part{n}.o' for n in range(MANY))}\n",
    "Makefile": "all:\n\t$(MAKE) -C $(KERNEL) M=$(CURDIR) modules\n",
}

LINKED = {
    **many(PART),
    "main.c": MAIN,
    "Makefile": f"""
all: staged
build/%.o: %.c ; mkdir -p build; $(CC) -g -c $< -o $@
build/program: {" ".join(f"build/part{n}.o" for n in range(MANY))} build/main.o ; $(CC) -g -o $@ $^
staged: build/program
	rm -rf release debug
	cp -al build release
	cp -al build debug
	strip release/program
	objcopy --strip-debug debug/part0.o
	objcopy --rename-section .comment=.hi release/part1.o
	touch $@
again: staged
	$(CC) -g -O2 -c part2.c -o release/part2.o
	$(CC) -g -o debug/program build/*.o
""",
}

IMAGE = {
    **many(PART),
    "main.c": MAIN,
    "Makefile": f"""
export E2FSPROGS_FAKE_TIME = 1700000000
UUID = 6f1b2b7e-5c0e-4a5e-9d6c-0d5f6d3c2b1a
all: disk.img
program: main.o {PARTS} ; $(CC) -static -o $@ $^
rootfs.img: program
	truncate -s 64M $@
	mke2fs -q -F -t ext4 -U $(UUID) -E hash_seed=$(UUID),lazy_itable_init=1 $@
	debugfs -w -R 'write program init' $@ 2>debugfs.log
disk.img: rootfs.img
	truncate -s 1G $@
	dd if=rootfs.img of=$@ bs=1M seek=1 conv=notrunc,sparse status=none
	printf 'boot sector' | dd of=$@ conv=notrunc status=none
""",
}

SHARED = {
    **many(PART),
    "main.c": MAIN,
    "Makefile": f"""
all: group/install/program acl/program
group/program: {" ".join(f"group/objects/part{n}.o" for n in range(MANY))} group/objects/main.o ; $(CC) -o $@ $^
group/install/program: group/program ; mkdir -p group/install; install -m 755 $< $@; cp $< group/install/copy
acl/program: group/program ; mkdir -p acl/new; $(CC) -o $@ group/objects/*.o; echo 1 >acl/new/stamp
group/objects/%.o: %.c ; mkdir -p group/objects; $(CC) -c $< -o $@
""",
}

TEMPORARY = {
    **{f"src/{name}": text for name, text in many(PART).items()},
    "src/main.c": MAIN,
    "src/generated.in": "#define VERSION 1\n",
    "build/Makefile": f"""
VPATH = ../src
CPPFLAGS = -I. -I../src
program: main.o {PARTS} ; $(CC) -o $@ $^
main.o {PARTS}: generated.h
generated.h: generated.in ; t=$$(mktemp) && sed s/1/2/ $< >$$t && cp $$t $@ && rm $$t
""",
}

CRATE = '[package]\nname = "{name}"\nversion = "1.0.0"\nedition = "2021"\n\n[dependencies]\n{more}\n'
CARGO = {
    "Cargo.toml": '[workspace]\nresolver = "2"\nmembers = ["program", "library", "macros", "more"]\n',
    "program/Cargo.toml": CRATE.replace("{name}", "program").replace(
        "{more}", 'library = { path = "../library" }\nmore = { path = "../more" }'
    ),
    "program/build.rs": 'fn main() { println!("cargo:rustc-env=MADE=built"); }\n',
    "program/src/main.rs": 'fn main() { println!("{} {}", library::f() + more::f(), env!("MADE")); }\n',
    "library/Cargo.toml": CRATE.replace("{name}", "library").replace("{more}", 'macros = { path = "../macros" }'),
    "library/src/lib.rs": "pub fn f() -> i32 { macros::forty!() }\n",
    "more/Cargo.toml": CRATE.replace("{name}", "more").replace("{more}", ""),
    "more/src/lib.rs": "pub fn f() -> i32 { 2 }\n",
    "macros/Cargo.toml": CRATE.replace("{name}", "macros").replace("{more}", "\n[lib]\nproc-macro = true"),
    "macros/src/lib.rs": """use proc_macro::TokenStream;

#[proc_macro]
pub fn forty(_: TokenStream) -> TokenStream {
    "40".parse().unwrap()
}
""",
}
