# A bucket for archives of embedded stores (docs/operations.md, "When the disk dies"), and who may use it.
#
#   terraform init && terraform apply -var region=eu-central-1 -var bucket=example-widgets-archive

terraform {
  required_version = ">= 1.9"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.100, < 7"
    }
  }
}

variable "region" {
  description = "The region of the bucket: another one than the service's survives the region as well."
  type        = string
}

variable "bucket" {
  description = "Its name, which nobody else in the world may have."
  type        = string
}

variable "deleted_days" {
  description = "How long what was pruned, or deleted by mistake or malice, can still be brought back."
  type        = number
  default     = 14
}

provider "aws" {
  region = var.region
}

resource "aws_s3_bucket" "archive" {
  bucket = var.bucket
}

# The manifest is replaced each second: its old versions go as those of deleted objects do.
resource "aws_s3_bucket_versioning" "archive" {
  bucket = aws_s3_bucket.archive.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "archive" {
  # Versioning first.
  depends_on = [aws_s3_bucket_versioning.archive]
  bucket     = aws_s3_bucket.archive.id

  # What is current is never touched here: which moments are kept is decided by `widgets archive prune`, which knows what
  # they need.
  rule {
    id     = "old-versions"
    status = "Enabled"
    filter {}
    noncurrent_version_expiration {
      noncurrent_days = var.deleted_days
    }
    expiration {
      expired_object_delete_marker = true
    }
    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

resource "aws_s3_bucket_public_access_block" "archive" {
  bucket                  = aws_s3_bucket.archive.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "archive" {
  bucket = aws_s3_bucket.archive.id
  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

data "aws_iam_policy_document" "writer" {
  statement {
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.archive.arn]
  }
  statement {
    actions   = ["s3:GetObject", "s3:PutObject"]
    resources = ["${aws_s3_bucket.archive.arn}/*"]
  }
}

data "aws_iam_policy_document" "pruner" {
  source_policy_documents = [data.aws_iam_policy_document.writer.json]
  statement {
    actions   = ["s3:DeleteObject"]
    resources = ["${aws_s3_bucket.archive.arn}/*"]
  }
}

# For the service, which deletes nothing.
resource "aws_iam_policy" "writer" {
  name   = "${var.bucket}-writer"
  policy = data.aws_iam_policy_document.writer.json
}

# For `widgets archive prune`.
resource "aws_iam_policy" "pruner" {
  name   = "${var.bucket}-pruner"
  policy = data.aws_iam_policy_document.pruner.json
}

output "archive_url" {
  description = "What archive.url is to be, with a prefix for each store."
  value       = "s3://${aws_s3_bucket.archive.id}/widgets"
}
