//! The bare calls of the MySQL crate: `GET_LOCK` and `RELEASE_LOCK`, on a connection of one's own.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};

use crate::Outcome;
use crate::base::{self, Alone, Pair};
use crate::calls::place;

/// A connection, made with the first statement. A clone has another one.
pub(crate) struct Session {
    url: String,
    conn: Option<Conn>,
}

impl Clone for Session {
    fn clone(&self) -> Self {
        Self { url: self.url.clone(), conn: None }
    }
}

impl base::Session for Session {
    async fn open(url: &str) -> Outcome<Self> {
        let mut session = Self { url: url.to_owned(), conn: None };
        session.one("SELECT 1").await?;
        Ok(session)
    }

    async fn take(&mut self, name: &str) -> Outcome<()> {
        self.one(&format!("SELECT GET_LOCK('{name}',0)")).await
    }

    async fn give(&mut self, name: &str) -> Outcome<()> {
        self.one(&format!("SELECT RELEASE_LOCK('{name}')")).await
    }
}

impl Session {
    /// Runs a statement whose answer has to be 1.
    async fn one(&mut self, sql: &str) -> Outcome<()> {
        let conn = match &mut self.conn {
            Some(conn) => conn,
            None => self.conn.insert(connect(&self.url).await?),
        };
        match conn.query_first::<Option<u8>, _>(sql).await? {
            Some(Some(1)) => Ok(()),
            other => Err(format!("{sql}: {other:?}").into()),
        }
    }

    /// Asks for an answer, as often as a ttl needs it.
    pub(crate) async fn keep(&mut self) -> Outcome<()> {
        self.one("SELECT 1").await
    }
}

async fn connect(url: &str) -> Outcome<Conn> {
    let (host, port) = place(url).rsplit_once(':').ok_or("a port")?;
    let options = OptsBuilder::default().ip_or_hostname(host).tcp_port(port.parse()?).prefer_socket(false);
    Ok(Conn::new(options.max_allowed_packet(Some(1 << 24)).wait_timeout(Some(28_800))).await?)
}

/// The number of statements that the server has had.
pub(crate) fn statements(url: &str) -> Outcome<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut conn = connect(url).await?;
        let figure: Option<(String, String)> = conn.query_first("SHOW GLOBAL STATUS LIKE 'Questions'").await?;
        conn.disconnect().await?;
        Ok(figure.ok_or("the server counts")?.1.parse()?)
    })
}

/// One contender of many: it waits at the server.
pub(crate) struct Handover(Alone<Session>);

impl Handover {
    pub(crate) fn new(url: &str, name: &str) -> Outcome<Self> {
        Alone::new(url, name).map(Self)
    }
}

impl Pair for Handover {
    fn take(&mut self) -> Outcome<()> {
        let Alone { runtime, session, name } = &mut self.0;
        runtime.block_on(session.one(&format!("SELECT GET_LOCK('{name}',60)")))
    }

    fn give(&mut self) -> Outcome<()> {
        self.0.give()
    }
}
