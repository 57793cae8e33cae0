//! Names the shared library by its ABI, so that programs find it under that name.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let abi = env!("CARGO_PKG_VERSION_MAJOR");
    match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("macos") => println!("cargo:rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libdlock.{abi}.dylib"),
        // nodelete: dlclose must not unmap what the library's threads run.
        Ok("linux") => {
            println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libdlock.so.{abi}");
            println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        }
        _ => {}
    }
}
