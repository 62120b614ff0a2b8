/work/wt/land/crates/testkit/target/static/debug/deps/cfg_if-541bb0531a7b1ba2.d: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/cfg-if-1.0.5/src/lib.rs

/work/wt/land/crates/testkit/target/static/debug/deps/libcfg_if-541bb0531a7b1ba2.rlib: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/cfg-if-1.0.5/src/lib.rs

/work/wt/land/crates/testkit/target/static/debug/deps/libcfg_if-541bb0531a7b1ba2.rmeta: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/cfg-if-1.0.5/src/lib.rs

/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/cfg-if-1.0.5/src/lib.rs:
