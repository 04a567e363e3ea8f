# A bucket for archives of embedded stores (docs/operations.md, "When the disk dies"), and policies for its users.
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
  description = "The bucket's region. In a region other than the service's, the archive also survives the loss of the service's region."
  type        = string
}

variable "bucket" {
  description = "The bucket's name, which must be globally unique."
  type        = string
}

variable "deleted_days" {
  description = "For how many days objects can be restored after they were pruned, or deleted by mistake or malice."
  type        = number
  default     = 14
}

provider "aws" {
  region = var.region
}

resource "aws_s3_bucket" "archive" {
  bucket = var.bucket
}

# The manifest is replaced each second; its old versions expire like those of deleted objects.
resource "aws_s3_bucket_versioning" "archive" {
  bucket = aws_s3_bucket.archive.id
  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "archive" {
  # Versioning must be enabled first.
  depends_on = [aws_s3_bucket_versioning.archive]
  bucket     = aws_s3_bucket.archive.id

  # This never touches current objects: `widgets archive prune`, which knows what each moment needs, decides which
  # moments are kept.
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
  description = "The value for archive.url; use a separate prefix for each store."
  value       = "s3://${aws_s3_bucket.archive.id}/widgets"
}
