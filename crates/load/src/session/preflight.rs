//! Checks that there is a server that can be measured.

use super::Settings;
use crate::{
    client::{Channel, Request, Target, channels},
    dataset::{BLOCK_WIDGETS, Dataset, DatasetWidget},
    error::Error,
    partition::Observed,
    shown,
};
use std::rc::Rc;
use tokio::time::timeout;

/// How many widgets of a dataset are compared with how they were generated.
const SAMPLE: u32 = 256;

/// Sends the server a few requests whose answers are known, before any load.
pub(super) async fn preflight(settings: &Settings) -> Result<(), Error> {
    let target = Target::new(&settings.target).map_err(Error::Target)?;
    let mut lanes = channels(&Rc::new(target), 1);
    let Some(channel) = lanes.first_mut() else {
        return Ok(());
    };
    let own = format!("{}-0-0", settings.run);
    if read(settings, channel, &own).await?.is_some() {
        return Err(Error::RunTaken {
            run: settings.run.clone(),
        });
    }
    match settings.dataset {
        Some((dataset, part)) => check_dataset(settings, channel, dataset, part).await,
        None => Ok(()),
    }
}

/// Compares a sample of this run's part of the dataset, because earlier runs may have changed other
/// parts.
async fn check_dataset(
    settings: &Settings,
    channel: &mut Channel,
    dataset: Dataset,
    part: (u32, u32),
) -> Result<(), Error> {
    let sample = sample(dataset, part);
    let (mut missing, mut different, mut example) = (0, 0, None);
    let mut serial_number = String::new();
    for widget in &sample {
        serial_number.clear();
        Dataset::write_serial_number(widget.index, &mut serial_number);
        let body = read(settings, channel, &serial_number).await?;
        missing += usize::from(body.is_none());
        let observed = body.as_deref().map(Observed::parse).transpose();
        let difference = match observed {
            Ok(observed) => Observed::differs_from(observed.as_ref(), &dataset, widget),
            Err(why) => Some(why),
        };
        if let Some(difference) = difference {
            different += 1;
            example.get_or_insert((serial_number.clone(), difference));
        }
    }
    match example {
        None => Ok(()),
        Some((serial_number, _)) if missing == sample.len() => {
            Err(Error::NoDataset { serial_number })
        }
        Some((serial_number, difference)) => Err(Error::DatasetChanged {
            dataset: dataset.to_string(),
            sampled: sample.len(),
            different,
            serial_number,
            difference,
        }),
    }
}

/// Returns widgets from all over a part of a dataset, including its first.
fn sample(dataset: Dataset, (part, parts): (u32, u32)) -> Vec<DatasetWidget> {
    let blocks = (dataset.blocks() + parts - 1).saturating_sub(part) / parts;
    let taken = SAMPLE.min(blocks.saturating_mul(BLOCK_WIDGETS));
    let mut block = Vec::new();
    let mut sample: Vec<DatasetWidget> = (0..taken)
        .filter_map(|number| {
            // In 64 bits, because there can be 2^25 blocks.
            let of_part = u64::from(number) * u64::from(blocks) / u64::from(taken);
            let of_part = u32::try_from(of_part).unwrap_or_default();
            dataset.block(of_part * parts + part, &mut block);
            // Takes a different place in each block; 29 and 64 have no common divisor.
            let place = (number * 29) as usize % block.len().max(1);
            block.get(place).copied()
        })
        .collect();
    sample.dedup_by_key(|widget| widget.index);
    sample
}

/// Looks a widget up. Returns `None` if it does not exist, and an error for any other answer.
async fn read(
    settings: &Settings,
    channel: &mut Channel,
    serial_number: &str,
) -> Result<Option<Vec<u8>>, Error> {
    let request = Request {
        path: format!("/widgets/{serial_number}"),
        ..Request::default()
    };
    let asked = async {
        channel.connect(settings.timeout).await?;
        let answer = channel.exchange(&request, settings.timeout).await;
        answer.map_err(|failure| failure.cause)
    };
    let answer = timeout(settings.timeout, asked)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {:?}", settings.timeout)));
    let answer = answer.map_err(Error::Unreachable)?;
    match (answer.status, answer.code().as_deref()) {
        (200, _) => Ok(Some(answer.body.to_vec())),
        (404, Some("WG001")) => Ok(None),
        (status @ (401 | 403), _) => Err(Error::Token { status }),
        (status, _) => {
            let body = String::from_utf8_lossy(answer.body);
            let body: String = body.chars().take(200).collect();
            let body = shown(&body).into_owned();
            Err(Error::Strange {
                path: request.path,
                status,
                body,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_sample_spans_its_whole_part_and_nothing_else() {
        for (widgets, part, parts) in [(1, 0, 1), (100, 1, 2), (1500, 1, 2), (1 << 31, 3, 4)] {
            let dataset = Dataset {
                widgets,
                seed: 1,
                associated: 0.5,
            };
            let sample = sample(dataset, (part, parts));
            let indices: Vec<u32> = sample.iter().map(|widget| widget.index).collect();
            assert!(
                indices
                    .iter()
                    .all(|index| index / BLOCK_WIDGETS % parts == part && *index < widgets),
                "{indices:?}"
            );
            let expected = (widgets / parts).clamp(1, SAMPLE) as usize;
            assert!(sample.len() >= expected / 3, "{}", sample.len());
            assert_eq!(indices[0] / BLOCK_WIDGETS, part);
            let last = indices[indices.len() - 1] / BLOCK_WIDGETS;
            assert!(last >= dataset.blocks() - dataset.blocks().div_ceil(16).max(parts));
        }
        let nothing = Dataset {
            widgets: 1,
            seed: 1,
            associated: 0.5,
        };
        assert!(sample(nothing, (3, 4)).is_empty(), "this part has no block");
    }
}
