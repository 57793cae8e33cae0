//! What goes wrong: processes that stand still or die, cut connections, a server that pauses or loses its data, an
//! operator who breaks locks.

use std::sync::Arc;

use dlock::clock::{self, Instant};

use crate::world::{World, ms};

pub async fn nemesis(world: Arc<World>, end: Instant) {
    let mut rng = fastrand::Rng::with_seed(world.seed ^ 0x0bad_cafe);
    let plan = &world.plan;
    while !end.passed() {
        clock::sleep(ms(rng.u64(20..400))).await;
        let hosts = world.lock().hosts.len();
        let p = rng.usize(0..hosts);
        if world.lock().hosts[p].dead {
            continue;
        }
        match rng.u8(0..6) {
            0 if plan.stalls => stall(&world, p, ms(rng.u64(20..1_400))),
            1 if plan.kills && rng.bool() => kill(&world, p),
            2 if plan.cuts => {
                world.event(format_args!("p{p} is cut off"));
                world.lock().hosts[p].cut = Instant::now().plus(ms(rng.u64(50..1_500)));
            }
            3 if plan.pauses => {
                world.event(format_args!("the server pauses"));
                world.lock().server.paused = Instant::now().plus(ms(rng.u64(20..900)));
            }
            4 if plan.breaks => {
                let key = plan.keys[rng.usize(0..plan.keys.len())].clone();
                let request = crate::server::Request::Break(key);
                world.call(p, request, ms(300)).await;
            }
            5 if plan.data_loss && rng.u8(0..3) == 0 => {
                world.event(format_args!("the server loses all data"));
                world.lose_data();
            }
            _ => {}
        }
    }
}

fn stall(world: &Arc<World>, p: usize, how_long: std::time::Duration) {
    {
        let mut inner = world.lock();
        if inner.hosts[p].stopped {
            return;
        }
        inner.hosts[p].stopped = true;
        inner.check.event(format_args!("p{p} stands still"));
        inner.check.count("stalled");
        inner.hosts[p].life.stop();
    }
    let world = world.clone();
    tokio::spawn(async move {
        clock::sleep(how_long).await;
        let life = {
            let mut inner = world.lock();
            inner.hosts[p].stopped = false;
            inner.hosts[p].thawed = Instant::now();
            inner.check.event(format_args!("p{p} goes on"));
            inner.hosts[p].life.clone()
        };
        life.resume();
    });
}

fn kill(world: &Arc<World>, p: usize) {
    world.event(format_args!("p{p} is killed"));
    {
        let mut inner = world.lock();
        inner.hosts[p].life.kill();
        inner.hosts[p].dead = true;
        inner.check.count("killed");
        inner.working.retain(|(of, _)| *of != p);
    }
    crate::start(world);
}
