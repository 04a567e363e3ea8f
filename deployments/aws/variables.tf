variable "name" {
  description = "Names everything that is made."
  type        = string
  default     = "widgets"
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,20}$", var.name))
    error_message = "The name must be 1 to 21 lower-case letters, digits and hyphens, a letter first."
  }
}

variable "region" {
  description = "The AWS region."
  type        = string
}

variable "vpc_id" {
  description = "The VPC that everything is in."
  type        = string
}

variable "public_subnet_ids" {
  description = "Subnets of the load balancer, in at least two zones."
  type        = list(string)
  validation {
    condition     = length(var.public_subnet_ids) >= 2
    error_message = "A load balancer needs subnets in at least two zones."
  }
}

variable "private_subnet_ids" {
  description = "Subnets of the service and the database, in at least two zones. They must reach ECR, Secrets Manager and CloudWatch Logs, by a NAT gateway or by VPC endpoints."
  type        = list(string)
  validation {
    condition     = length(var.private_subnet_ids) >= 2
    error_message = "Aurora needs subnets in at least two zones."
  }
}

variable "certificate_arn" {
  description = "The ACM certificate of the load balancer."
  type        = string
}

variable "client_cidrs" {
  description = "Who may reach the load balancer. Unless the service asks for tokens, anyone who reaches it may do everything."
  type        = list(string)
}

variable "internal" {
  description = "Whether the load balancer has private addresses only."
  type        = bool
  default     = true
}

variable "image" {
  description = "The image, by digest or by a tag that never moves. See Dockerfile beside this file."
  type        = string
}

variable "psql_image" {
  description = "An image with psql, for giving the role its password."
  type        = string
  default     = "public.ecr.aws/docker/library/postgres:15"
}

variable "architecture" {
  description = "What the image was built for: X86_64 or ARM64."
  type        = string
  default     = "X86_64"
}

variable "cpu" {
  description = "Processor of one replica, in 1/1024 of a vCPU."
  type        = number
  default     = 1024
}

variable "memory_mib" {
  description = "Memory of one replica."
  type        = number
  default     = 2048
}

variable "replicas_min" {
  description = "Fewest replicas."
  type        = number
  default     = 2
}

variable "replicas_max" {
  description = "Most replicas. Each takes three connections to the database unless set."
  type        = number
  default     = 10
}

variable "environment" {
  description = "Any key of the service's configuration, by its variable."
  type        = map(string)
  default     = {}
}

variable "database_engine_major_version" {
  description = "The major version of Aurora PostgreSQL, 15 or newer. Its newest minor version is taken at first and then kept up to date by AWS."
  type        = string
  default     = "16"
}

variable "database_instance_class" {
  description = "The class of the database's instances, or db.serverless."
  type        = string
  default     = "db.r6g.large"
}

variable "database_serverless_capacity" {
  description = "Least and most Aurora capacity units, if the class is db.serverless."
  type        = object({ min = number, max = number })
  default     = { min = 1, max = 16 }
}

variable "database_instances" {
  description = "How many instances: one, and a standby in another zone for each more."
  type        = number
  default     = 2
}

variable "database_storage_type" {
  description = "Empty for pay by I/O, aurora-iopt1 for a fixed price."
  type        = string
  default     = ""
}

variable "backup_retention_days" {
  description = "How far back a point in time can be restored."
  type        = number
  default     = 14
}

variable "password_version" {
  description = "Count up to make new passwords; then run the migration task and deploy the service again."
  type        = number
  default     = 1
}

variable "migrate_by_terraform" {
  description = "Whether apply runs the migration before the service. It needs the AWS CLI where Terraform runs."
  type        = bool
  default     = true
}

variable "alarm_email" {
  description = "Who is written to when an alarm rings; AWS asks that address first whether it wants to be. Or alarm_topic_arns."
  type        = string
  default     = ""
}

variable "alarm_topic_arns" {
  description = "SNS topics that hear of alarms."
  type        = list(string)
  default     = []
  validation {
    condition     = length(var.alarm_topic_arns) > 0 || var.alarm_email != ""
    error_message = "An alarm that nobody hears is none: set alarm_email or alarm_topic_arns."
  }
}
