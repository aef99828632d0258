//! Memory that the program freed and the allocator keeps: handing it back to the system.
//!
//! Called by the database when a flush has freed a head. `docs/decisions/0055-free-memory-is-handed-back.md`
//! says why.

/// Asks the allocator to give free pages back to the system; does nothing where it cannot be asked.
///
/// Takes some milliseconds for a hundred megabytes, and may hold other threads up that allocate meanwhile.
pub(super) fn release_free_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::release();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    #[allow(unsafe_code)]
    unsafe extern "C" {
        /// `man 3 malloc_trim`, "releases free memory back to the system"; thread-safe.
        fn malloc_trim(pad: usize) -> i32;
    }

    #[allow(unsafe_code)]
    pub(super) fn release() {
        // SAFETY: the function takes a number, is in every glibc since 2.8, and touches nothing but pages that are
        // free. With another allocator in the program it finds little to do.
        unsafe { malloc_trim(0) };
    }
}
