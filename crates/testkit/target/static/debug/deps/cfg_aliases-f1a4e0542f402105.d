/work/wt/land/crates/testkit/target/static/debug/deps/cfg_aliases-f1a4e0542f402105.d: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/cfg_aliases-0.2.2/src/lib.rs

/work/wt/land/crates/testkit/target/static/debug/deps/libcfg_aliases-f1a4e0542f402105.rlib: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/cfg_aliases-0.2.2/src/lib.rs

/work/wt/land/crates/testkit/target/static/debug/deps/libcfg_aliases-f1a4e0542f402105.rmeta: /root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/cfg_aliases-0.2.2/src/lib.rs

/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/cfg_aliases-0.2.2/src/lib.rs:
