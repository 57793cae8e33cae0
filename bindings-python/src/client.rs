//! `Client`, and the objects that describe a backend and a key's contenders.

use dlock::options::Unit;
use dlock::{Op, limits};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::acquire::Acquire;
use crate::aio::{self, Coroutine};
use crate::bridge;
use crate::error::raised;
use crate::lease::Lease;
use crate::lock::Lock;
use crate::options::text;
use crate::origin::Origin;

/// A client of one backend. Clients of equal configuration share the connection, the local queue and the watchdog.
#[pyclass(frozen, weakref, module = "dlock", name = "Client")]
pub(crate) struct Client(pub(crate) dlock::Client);

fn list(py: Python<'_>, contenders: Vec<dlock::ContenderInfo>) -> PyResult<Py<PyAny>> {
    let contenders: Vec<_> = contenders.into_iter().map(Contender::from).collect();
    Ok(contenders.into_pyobject(py)?.unbind())
}

fn nothing(py: Python<'_>, (): ()) -> PyResult<Py<PyAny>> {
    Ok(py.None())
}

impl Client {
    fn acquiring(&self, key: &Bound<'_, PyAny>, options: Option<&Bound<'_, PyDict>>) -> PyResult<Acquire> {
        Acquire::new(key.py(), self.0.lock(text("key", key)?), options)
    }

    fn call<T: Send + 'static>(
        slf: Py<Self>,
        begin: impl FnOnce(&dlock::Client) -> Op<T> + Send + Sync + 'static,
        convert: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + Sync + 'static,
    ) -> Coroutine {
        aio::call(move |_| Ok(begin(&slf.get().0)), convert)
    }
}

#[pymethods]
impl Client {
    #[pyo3(signature = (key, **options))]
    fn lock(&self, py: Python<'_>, key: &Bound<'_, PyAny>, options: Option<&Bound<'_, PyDict>>) -> PyResult<Lock> {
        let key = text("key", key)?;
        Lock::new(py, self.0.lock(key), options, Origin::Url(self.0.config().url()))
    }

    #[pyo3(signature = (key, **options))]
    fn acquire(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<Lease>> {
        self.acquiring(key, options)?.now(py)
    }

    #[pyo3(signature = (key, **options))]
    fn try_acquire(
        &self,
        py: Python<'_>,
        key: &Bound<'_, PyAny>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Option<Py<Lease>>> {
        self.acquiring(key, options)?.try_now(py)
    }

    #[pyo3(signature = (key, **options))]
    fn aacquire(&self, key: &Bound<'_, PyAny>, options: Option<&Bound<'_, PyDict>>) -> PyResult<Coroutine> {
        Ok(self.acquiring(key, options)?.later())
    }

    #[pyo3(signature = (key, **options))]
    fn atry_acquire(&self, key: &Bound<'_, PyAny>, options: Option<&Bound<'_, PyDict>>) -> PyResult<Coroutine> {
        Ok(self.acquiring(key, options)?.try_later())
    }

    fn contenders(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        list(py, bridge::wait(py, self.0.contenders(text("key", key)?))?)
    }

    fn acontenders(slf: Py<Self>, key: &Bound<'_, PyAny>) -> PyResult<Coroutine> {
        let key = text("key", key)?.to_owned();
        Ok(Self::call(slf, move |client| client.contenders(&key), list))
    }

    fn break_lock(&self, py: Python<'_>, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        bridge::wait(py, self.0.break_lock(text("key", key)?))
    }

    fn abreak_lock(slf: Py<Self>, key: &Bound<'_, PyAny>) -> PyResult<Coroutine> {
        let key = text("key", key)?.to_owned();
        let told = |py: Python<'_>, broken: bool| Ok(broken.into_pyobject(py)?.to_owned().into_any().unbind());
        Ok(Self::call(slf, move |client| client.break_lock(&key), told))
    }

    fn ping(&self, py: Python<'_>) -> PyResult<()> {
        bridge::wait(py, self.0.ping())
    }

    fn aping(slf: Py<Self>) -> Coroutine {
        Self::call(slf, dlock::Client::ping, nothing)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        bridge::wait(py, self.0.close(limits::CLOSE))
    }

    fn aclose(slf: Py<Self>) -> Coroutine {
        Self::call(slf, |client| client.close(limits::CLOSE), nothing)
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_failure))]
    fn __exit__(&self, py: Python<'_>, _failure: &Bound<'_, pyo3::types::PyTuple>) -> PyResult<()> {
        self.close(py)
    }

    fn __aenter__(slf: Py<Self>) -> Coroutine {
        aio::call(move |_| Ok(Op::ready(Ok(slf))), |_, slf: Py<Self>| Ok(slf.into_any()))
    }

    #[pyo3(signature = (*_failure))]
    fn __aexit__(slf: Py<Self>, _failure: &Bound<'_, pyo3::types::PyTuple>) -> Coroutine {
        Self::aclose(slf)
    }

    #[getter]
    fn backend(&self) -> &str {
        self.0.backend()
    }

    #[getter]
    fn capabilities(&self) -> Capabilities {
        self.0.capabilities().in_bindings().into()
    }

    fn __repr__(&self) -> String {
        format!("<dlock.Client {}>", self.0.config().url())
    }
}

/// A contender: a holder of a key or a waiter for it. A value that the backend doesn't know is None.
#[pyclass(frozen, get_all, module = "dlock")]
pub(crate) struct Contender {
    held: bool,
    token: Option<String>,
    label: Option<String>,
    host: Option<String>,
    pid: Option<u32>,
    fence: Option<u64>,
    age: Option<f64>,
    ttl: Option<f64>,
}

impl From<dlock::ContenderInfo> for Contender {
    fn from(contender: dlock::ContenderInfo) -> Self {
        Self {
            held: contender.held,
            token: contender.token,
            label: contender.label,
            host: contender.host,
            pid: contender.pid,
            fence: contender.fence,
            age: contender.age.map(|age| Unit::Seconds.number(age)),
            ttl: contender.ttl.map(|ttl| Unit::Seconds.number(ttl)),
        }
    }
}

#[pymethods]
impl Contender {
    fn __repr__(&self) -> String {
        let state = if self.held { "holds" } else { "waits" };
        let mut text = format!("<dlock.Contender {state}");
        let known = [
            ("pid", self.pid.map(|pid| pid.to_string())),
            ("host", self.host.clone()),
            ("label", self.label.as_deref().map(dlock::show)),
            ("fence", self.fence.map(|fence| fence.to_string())),
            ("age", self.age.map(|age| format!("{age:.3}"))),
        ];
        for (name, value) in known {
            if let Some(value) = value {
                text += &format!(" {name}={value}");
            }
        }
        text + ">"
    }
}

/// The capabilities of a backend.
#[pyclass(frozen, get_all, module = "dlock")]
pub(crate) struct Capabilities {
    fence: bool,
    ttl: bool,
    fifo: bool,
    shared: bool,
    permits: bool,
    handoff: bool,
    processes: bool,
    fork: bool,
    min_ttl: f64,
    guarantee: &'static str,
}

impl From<dlock::Capabilities> for Capabilities {
    fn from(can: dlock::Capabilities) -> Self {
        Self {
            fence: can.fence,
            ttl: can.ttl,
            fifo: can.fifo,
            shared: can.shared,
            permits: can.permits,
            handoff: can.handoff,
            processes: can.processes,
            fork: can.fork,
            min_ttl: Unit::Seconds.number(can.min_ttl),
            guarantee: can.guarantee,
        }
    }
}

#[pymethods]
impl Capabilities {
    fn __repr__(&self) -> String {
        format!(
            "<dlock.Capabilities fence={} ttl={} fifo={} processes={} fork={} min_ttl={}>",
            self.fence, self.ttl, self.fifo, self.processes, self.fork, self.min_ttl
        )
    }
}

/// Makes a lock like the one that was pickled.
#[pyfunction]
pub(crate) fn _restore(py: Python<'_>, origin: Origin, key: &str, options: &Bound<'_, PyDict>) -> PyResult<Lock> {
    let client = origin.client().map_err(|error| raised(py, &error))?;
    Lock::new(py, client.lock(key), Some(options), origin)
}
