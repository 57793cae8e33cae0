//! The entry of the module, which refuses every interpreter but the main one. Locks belong to the process, and a second
//! interpreter that ends would release them.

#![allow(unsafe_code)]
#![allow(non_snake_case, reason = "as Python looks for it")]

use pyo3::ffi;

const REFUSAL: &std::ffi::CStr =
    c"dlock can't be used in a subinterpreter: its locks belong to the process, and the end of \
one interpreter would release those of the others. Run the program in the main interpreter: uWSGI does with \
single-interpreter = true, mod_wsgi with WSGIApplicationGroup %{GLOBAL}";

unsafe extern "C" {
    /// Makes the module. pyo3 generates this function.
    safe fn PyInit__engine() -> *mut ffi::PyObject;
}

/// Makes the module. Python calls this function at an import.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn PyInit__dlock() -> *mut ffi::PyObject {
    // SAFETY: Python calls this attached to the interpreter that imports. Nothing of the module is made before the check.
    let number = unsafe { ffi::PyInterpreterState_GetID(ffi::PyInterpreterState_Get()) };
    if number != 0 {
        // SAFETY: as above; the text is static.
        unsafe { ffi::PyErr_SetString(ffi::PyExc_ImportError, REFUSAL.as_ptr()) };
        return std::ptr::null_mut();
    }
    PyInit__engine()
}
