//! dlock for Python: classes that call the core. The core makes all decisions.

mod acquire;
mod aio;
mod bridge;
mod client;
mod error;
mod held;
mod hub;
mod interpreter;
mod lease;
mod lock;
mod options;
mod origin;
mod port;
mod who;

use pyo3::prelude::*;

/// The native half of the package `dlock`, imported as `dlock._dlock` through [`interpreter`].
#[pymodule(gil_used = false)]
mod _engine {
    use std::path::PathBuf;

    use dlock::{Config, registry};
    use pyo3::exceptions::PyTypeError;
    use pyo3::prelude::*;
    use pyo3::types::PyDict;

    use crate::acquire::Acquire;
    use crate::aio::Coroutine;
    use crate::error::raised;
    use crate::options::{self, Given};
    use crate::origin::Origin;

    #[pymodule_export]
    use crate::bridge::_shutdown;
    #[pymodule_export]
    use crate::client::{_restore, Capabilities, Client, Contender};
    #[pymodule_export]
    use crate::lease::{Lease, Lost};
    #[pymodule_export]
    use crate::lock::Lock;

    /// Returns a lock on this key, of the default client or of a named service's client.
    #[pyfunction]
    #[pyo3(signature = (key, *, service=None, **options))]
    fn lock(
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        service: Option<String>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Lock> {
        let key = options::text("key", key)?;
        let origin = Origin::Service(service, true);
        let client = origin.client().map_err(|error| raised(py, &error))?;
        Lock::new(py, client.lock(key), options, origin)
    }

    fn acquiring(
        key: &Bound<'_, PyAny>,
        service: Option<&str>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Acquire> {
        let (py, key) = (key.py(), options::text("key", key)?);
        let client = registry::shared(service).map_err(|error| raised(py, &error))?;
        Acquire::new(py, client.lock(key), options)
    }

    /// Acquires this key with the default client, or with a named service's client. Returns the lease.
    #[pyfunction]
    #[pyo3(signature = (key, *, service=None, **options))]
    fn acquire(
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        service: Option<&str>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<Lease>> {
        acquiring(key, service, options)?.now(py)
    }

    /// Acquires like acquire, but tries only once. Returns None if the lock is busy.
    #[pyfunction]
    #[pyo3(signature = (key, *, service=None, **options))]
    fn try_acquire(
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        service: Option<&str>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Option<Py<Lease>>> {
        acquiring(key, service, options)?.try_now(py)
    }

    /// Acquires like acquire, in asyncio.
    #[pyfunction]
    #[pyo3(signature = (key, *, service=None, **options))]
    fn aacquire(
        key: &Bound<'_, PyAny>,
        service: Option<&str>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Coroutine> {
        Ok(acquiring(key, service, options)?.later())
    }

    /// Tries once like try_acquire, in asyncio.
    #[pyfunction]
    #[pyo3(signature = (key, *, service=None, **options))]
    fn atry_acquire(
        key: &Bound<'_, PyAny>,
        service: Option<&str>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Coroutine> {
        Ok(acquiring(key, service, options)?.try_later())
    }

    /// Creates a client for a URL, for a backend's name and options, for a YAML file, or the default client. Does no
    /// I/O.
    #[pyfunction]
    #[pyo3(signature = (url=Given(None), *, config=Given(None), **options))]
    fn connect<'py>(
        py: Python<'py>,
        url: Given<'py>,
        config: Given<'py>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Client> {
        let url = url.needed("url")?;
        let url = url.as_ref().map(|url| options::text("url", url)).transpose()?;
        let config = config.needed("config")?.map(|path| path.extract::<PathBuf>()).transpose()?;
        let given = options.map(options::connection).transpose()?.unwrap_or_default();
        let client = match (url, config) {
            (Some(_), Some(_)) => return Err(PyTypeError::new_err("connect() takes a URL or config=, not both")),
            (None, _) if !given.is_empty() => {
                return Err(PyTypeError::new_err(
                    "connect() takes options after a backend's name: connect(\"file\", dir=…)",
                ));
            }
            (None, None) => registry::client(None),
            (None, Some(path)) => registry::from_file(&path),
            (Some(url), None) if url.contains("://") => {
                if !given.is_empty() {
                    return Err(PyTypeError::new_err(
                        "connect() takes the options of a URL in the URL: scheme://…?name=value",
                    ));
                }
                dlock::Client::connect(url)
            }
            (Some(backend), None) => Config::new(backend, given).and_then(dlock::Client::open),
        };
        client.map(Client).map_err(|error| raised(py, &error))
    }

    /// Registers a client under a name, so that `lock(key, service=name)` finds it.
    #[pyfunction]
    fn register(py: Python<'_>, name: &str, client: &Bound<'_, Client>) -> PyResult<()> {
        registry::register(name, &client.get().0).map_err(|error| raised(py, &error))
    }

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        dlock::runtime::watch_forks();
        crate::error::register(module)?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        py.import("atexit")?.call_method1("register", (module.getattr("_shutdown")?,))?;
        Ok(())
    }
}
