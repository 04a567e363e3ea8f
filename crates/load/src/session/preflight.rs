//! Whether there is a server, and one to be measured.

use super::Settings;
use crate::{
    client::{Request, Target, channels},
    dataset::{BLOCK_WIDGETS, Dataset},
    error::Error,
};
use std::rc::Rc;
use tokio::time::timeout;

/// Asks the server a few questions whose answers are known, before anything is sent.
pub(super) async fn preflight(settings: &Settings) -> Result<(), Error> {
    let target = Target::new(&settings.target).map_err(Error::Target)?;
    let mut lanes = channels(&Rc::new(target), 1);
    let Some(channel) = lanes.first_mut() else {
        return Ok(());
    };
    let mut questions = vec![(format!("{}-0-0", settings.run), false)];
    if let Some((dataset, (part, parts))) = settings.dataset {
        // Only of this run's part: earlier runs may have changed the others.
        let last = dataset.blocks().checked_sub(part + 1);
        let last = last.map(|rest| rest / parts * parts + part);
        for block in last.into_iter().flat_map(|last| [part, last]) {
            let mut serial_number = String::new();
            Dataset::write_serial_number(block * BLOCK_WIDGETS, &mut serial_number);
            questions.push((serial_number, true));
        }
    }
    for (serial_number, exists) in questions {
        let request = Request {
            path: format!("/widgets/{serial_number}"),
            ..Request::default()
        };
        let asked = async {
            channel.connect().await?;
            let answer = channel.exchange(&request, settings.timeout).await;
            answer.map_err(|failure| failure.cause)
        };
        let answer = timeout(settings.timeout, asked)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {:?}", settings.timeout)));
        let answer = answer.map_err(Error::Unreachable)?;
        let code = answer.code();
        match (answer.status, code.as_deref(), exists) {
            (200, _, true) | (404, Some("WG001"), false) => {}
            (200, _, false) => {
                return Err(Error::RunTaken {
                    run: settings.run.clone(),
                });
            }
            (404, Some("WG001"), true) => return Err(Error::NoDataset { serial_number }),
            (401 | 403, ..) => {
                return Err(Error::Token {
                    status: answer.status,
                });
            }
            (status, ..) => {
                let body = String::from_utf8_lossy(answer.body);
                let body: String = body.chars().take(200).collect();
                return Err(Error::Strange {
                    path: request.path,
                    status,
                    body,
                });
            }
        }
    }
    Ok(())
}
